// The controls: choices of columns, protocols, budgets and the selection's bounds.

/** Draw the controls for what can be chosen, and set them to what is. Those of a group that is being used stay;
 * with `typing` the one with the focus keeps what was typed into it. */
function drawControls(figures, colours, chosen, ranged, typing) {
  const {rows, columns, state} = page;
  const varying = (column) => distinct(rows, column).length > 1;
  const protocols = [...new Set(["run", ...[...columns.values()].flatMap((column) => column.within)])]
    .map((name) => columns.get(name)).filter((column) => column !== undefined && varying(column));
  refill(byId("protocols"), protocols.map((column) => choice(`at.${column.name}`, column.label,
    [["", "all"], ...distinct(rows, column).map((value) => [String(value), formatted(column, value)])])));
  const budgets = figures.filter((column) => column.better && column.name !== "fvcore_flops" && varying(column));
  refill(byId("budgets"), budgets.map((column) => budget(column, rows)));
  byId("budget-set").hidden = budgets.length === 0;
  refill(byId("ranges"), figures.filter(({name}) => ranged.has(name)).flatMap(range));
  byId("selection").hidden = figures.length === 0;
  const options = figures.map((column) => [column.name, column.label]);
  refill(byId("axes"), [
    choice("x", "Horizontal", options),
    choice("y", "Vertical", options),
    choice("color", "Colour of all plots", colours.map(({name, label}) => [name, label])),
    choice("size", "Size", [["", "equal"], ...options]),
  ]);
  refill(byId("heat-fields"), [choice("heat", "Figure", options)]);
  const selection = new Map(selectionOf(state));
  for (const control of document.querySelectorAll("#where, #all-columns, [data-state], [data-budget], [data-range]")) {
    if (typing && control === document.activeElement) continue;
    const {dataset, id} = control;
    if (id === "where") control.value = state.where;
    else if (id === "all-columns") control.checked = state.all === "1";
    else if (dataset.state) control.value = chosen[dataset.state] ?? state[dataset.state] ?? "";
    else if (dataset.budget) slide(control, state[dataset.budget] ?? "");
    else control.value = String(selection.get(dataset.range)?.[dataset.end] ?? "");
  }
}

function refill(host, children) {
  // What is being used is not taken away.
  if (!host.contains(document.activeElement)) host.replaceChildren(...children);
}

/** A choice with a label; `options` are [value, text]. */
function choice(name, label, options) {
  const select = element("select", {id: `choose-${name}`, "data-state": name}, options.map(([key, text]) => {
    const option = element("option", {}, [text]);
    option.value = key;
    return option;
  }));
  return element("div", {class: "field"}, [element("label", {for: `choose-${name}`}, [label]), select]);
}

/** A slider for a budget on `column`: at most, or where larger is better at least. */
function budget(column, rows) {
  const values = rows.map((row) => row[column.name]).filter((value) => value !== null);
  const kind = column.better === "larger" ? "min" : "max";
  const slider = element("input", {type: "range", id: `budget-${column.name}`, "data-budget": `${kind}.${column.name}`,
    min: "0", max: "200", step: "1", "data-low": Math.min(...values), "data-high": Math.max(...values)});
  const word = kind === "max" ? "at most" : "at least";
  return element("div", {class: "field"}, [
    element("label", {for: slider.id}, [`${column.label}, ${word}`]), slider, element("output", {for: slider.id})]);
}

const budgetText = (column, given) => (given === "" ? "any" : formatted(column, Number(given)));

/** Set a slider to a value, "" for no limit. */
function slide(slider, given) {
  const {low, high, free} = endsOf(slider);
  // Where it is there already: several places of a slider may show the same number.
  if (valueAt(slider) !== given) {
    const share = (value) => (isWide(low, high) ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    slider.value = String(given === "" || high <= low ? free : Math.round(200 * Math.min(1, Math.max(0, share(Number(given))))));
  }
  slider.nextElementSibling.textContent = budgetText(page.columns.get(slider.dataset.budget.slice(4)), given);
}

/** The value at a place of a slider; "" at its end without a limit. */
function valueAt(slider) {
  const {low, high, free} = endsOf(slider);
  const place = Number(slider.value);
  if (place === free) return "";
  if (place === 0) return String(low);
  if (place === 200) return String(high);
  const value = isWide(low, high) ? low * (high / low) ** (place / 200) : low + (place / 200) * (high - low);
  // Enough digits to tell the places of a narrow range apart.
  const digits = 4 + Math.max(0, Math.ceil(Math.log10(Math.abs(high) / (high - low))));
  return String(Number(value.toPrecision(Math.min(15, digits))));
}

const isWide = (low, high) => low > 0 && high / low > 20;

/** The ends of a slider, and the place that sets no limit. */
function endsOf({dataset}) {
  return {low: Number(dataset.low), high: Number(dataset.high), free: dataset.budget.startsWith("max.") ? 200 : 0};
}

/** Two numbers: the bounds of the selection in a column. */
function range(column) {
  return ["from", "to"].map((word, end) => {
    const id = `range-${column.name}-${end}`;
    const box = element("input", {type: "number", step: "any", id, "data-range": column.name, "data-end": String(end)});
    return element("div", {class: "field"}, [element("label", {for: id}, [`${column.label}, ${word}`]), box]);
  });
}
