// The controls: choices of columns, protocols, budgets and the selection's bounds.

/** A choice with a label; `options` are [value, text]. */
function choice(name, label, options, value) {
  const select = element("select", {id: `choose-${name}`, "data-state": name}, options.map(([key, text]) => {
    const option = element("option", {}, [text]);
    option.value = key;
    return option;
  }));
  select.value = value;
  return element("div", {class: "field"}, [element("label", {for: `choose-${name}`}, [label]), select]);
}

/** A slider for a budget on `column`: at most, or where larger is better at least. */
function budget(column, rows, state) {
  const values = rows.map((row) => row[column.name]).filter((value) => value !== null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const kind = column.better === "larger" ? "min" : "max";
  const name = `${kind}.${column.name}`;
  const given = state[name];
  const usual = kind === "max" ? high : low;
  const slider = element("input", {type: "range", id: `budget-${column.name}`, "data-budget": name, min: "0", max: "200",
    step: "1", "data-low": low, "data-high": high});
  slider.value = String(placeOf(given === undefined || given === "" ? usual : Number(given), low, high));
  const word = kind === "max" ? "at most" : "at least";
  const output = element("output", {for: slider.id}, [budgetText(column, given)]);
  return element("div", {class: "field"}, [
    element("label", {for: slider.id}, [`${column.label}, ${word}`]), slider, output]);
}

const budgetText = (column, given) => (given === undefined || given === "" ? "any" : formatted(column, Number(given)));

/** Where a value lies from 0 to 200 between the ends, over a wide range by its logarithm. */
function placeOf(value, low, high) {
  if (high <= low) return 200;
  const wide = low > 0 && high / low > 20;
  const share = wide ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return Math.round(200 * Math.min(1, Math.max(0, share)));
}

/** The value at a place of a slider; "" at its end without a limit. */
function valueAt(slider) {
  const [low, high] = [Number(slider.dataset.low), Number(slider.dataset.high)];
  const place = Number(slider.value);
  if (place === (slider.dataset.budget.startsWith("max.") ? 200 : 0)) return "";
  const share = place / 200;
  const wide = low > 0 && high / low > 20;
  const value = wide ? low * (high / low) ** share : low + share * (high - low);
  return String(Number(value.toPrecision(4)));
}

/** Two numbers: the bounds of the selection in a column. */
function range(column, ends) {
  const input = (end, word, value) => {
    const id = `range-${column.name}-${end}`;
    const box = element("input", {type: "number", step: "any", id, "data-range": column.name, "data-end": end});
    box.value = value === null || value === undefined ? "" : String(value);
    return element("div", {class: "field"}, [element("label", {for: id}, [`${column.label}, ${word}`]), box]);
  };
  return [input(0, "from", ends?.[0]), input(1, "to", ends?.[1])];
}
