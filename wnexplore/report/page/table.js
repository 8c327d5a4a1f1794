// The table: the columns that differ, sorted, in pages, and the same as CSV.

const PAGE_ROWS = 50;

/** A cell as the terminal's table shows it. */
function shownCell(row, column) {
  const value = row[column.name];
  if (value === null || value === undefined) return "";
  if (column.difference) return difference(column, value, ...column.interval.map((name) => row[name]));
  if (column.interval) {
    const text = withInterval(column, value, ...column.interval.map((name) => row[name]), shownCell.worthless);
    // The latency beside it has the interval.
    return column.name === "latency_ratio" && !text.endsWith(")") ? formatted(column, value) : text;
  }
  return formatted(column, value);
}

/** The columns to show of `rows`: those in which they differ, and the figures; all that aren't empty with `all`. */
function tableColumns(columns, rows, all) {
  const found = [...columns.values()].filter((column) => {
    if (column.bound || column.name === "error") return false;
    if (["warnings", "stopped_by", "rounds", "status", "fvcore_flops", "latency_is"].includes(column.name) && !all) {
      return false;
    }
    const values = distinct(rows, column).length;
    if (values === 0) return false;
    const always = column.better !== null || column.difference || ["method", "M", "G"].includes(column.name);
    return all || always || values > 1;
  });
  // The method comes first: it names the row.
  return found.sort((a, b) => Number(b.name === "method") - Number(a.name === "method"));
}

/** `rows` in the order that `sort` ("top1", "-top1") names; missing values come last. */
function sorted(rows, sort, columns) {
  const column = columns.get(sort.replace(/^-/, ""));
  if (column === undefined) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  const known = rows.filter((row) => row[column.name] !== null);
  const missing = rows.filter((row) => row[column.name] === null);
  const order = (a, b) => sign * orderOf(column, a[column.name], b[column.name]) || a.id - b.id;
  return [...known.sort(order), ...missing];
}

/** The marks of a row, each with its meaning for those who don't see it. */
function marksOf(row, marks) {
  const found = [];
  if (row.optimal) found.push([marks.optimal, "Pareto-optimal"]);
  if (row.alike) found.push([marks.alike, "not told apart from plain"]);
  if (row.latency_is === "predicted") found.push([marks.predicted, "predicted latency"]);
  if (row.warnings) found.push([marks.warning, `warnings: ${row.warnings}`]);
  if (row.status !== "ok") found.push([marks.failed, `failed: ${row.error ?? row.status}`]);
  return found;
}

/** Fill the table with one page of `rows`, or all of them; the method is the name of a row. */
function drawTable(table, rows, shown, {state, content, printing}) {
  const size = printing ? Math.max(1, rows.length) : PAGE_ROWS;
  const pages = Math.max(1, Math.ceil(rows.length / size));
  const number = Math.min(Math.max(1, Math.floor(Number(state.page)) || 1), pages);
  const opened = state.point === "" ? undefined : rowOf(state.point);
  const head = element("tr", {}, [
    ...shown.map((column) => {
      const direction = state.sort === column.name ? "ascending" : state.sort === `-${column.name}` ? "descending" : null;
      const unit = column.unit && column.kind === "number" ? ` (${column.unit})` : "";
      const arrow = {ascending: " ▲", descending: " ▼"}[direction] ?? "";
      const heading = column.name === "method" ? "Point" : `${column.heading}${unit}`;
      const button = element("button", {type: "button", "data-column": column.name, title: `Sort by ${column.label}`},
        [heading, element("span", {"aria-hidden": "true"}, [arrow])]);
      return element("th", {scope: "col", class: column.kind === "text" ? "" : "number",
        ...(direction ? {"aria-sort": direction} : {})}, [button]);
    }),
  ]);
  const body = rows.slice((number - 1) * size, number * size).map((row) => {
    const marks = marksOf(row, content.mark_signs);
    const said = marks.flatMap(([mark, meaning]) => [
      element("span", {"aria-hidden": "true", title: meaning}, [mark]), element("span", {class: "unseen"}, [` (${meaning})`])]);
    const name = () => element("th", {scope: "row"}, [
      element("button", {type: "button", "data-point": row.key, "aria-label": row.title}, [row.label]), " ", ...said]);
    return element("tr", {class: [row === opened ? "chosen" : "", row.status === "ok" ? "" : "failed"].join(" ").trim()},
      shown.map((column) => (column.name === "method" ? name()
        : element("td", {class: column.kind === "text" ? "" : "number"}, [shownCell(row, column)]))));
  });
  table.replaceChildren(element("thead", {}, [head]), element("tbody", {}, body));
  return {pages, number};
}

/** What is shown as CSV: unrounded, intervals in columns of their own. */
function csvOf(rows, shown) {
  const names = shown.flatMap((column) => [column.name, ...(column.interval ?? [])]);
  const lines = rows.map((row) => names.map((name) => csvCell(row[name])).join(","));
  return `${[names.join(","), ...lines].join("\n")}\n`;
}

/** An element with attributes and children; texts are texts. */
function element(name, attributes = {}, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== "") made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A table of texts, as a run's answer and a comparison have. */
function textTable({headings, numeric, rows}, caption) {
  const kind = (at) => ({class: numeric[at] ? "number" : ""});
  return scrolled(element("table", {}, [
    element("caption", {class: "unseen"}, [caption]),
    element("thead", {}, [element("tr", {}, headings.map((text, at) =>
      element(text ? "th" : "td", text ? {scope: "col", ...kind(at)} : {}, [text])))]),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map((text, at) => element("td", kind(at), [text]))))),
  ]), caption);
}

/** A table in a box of its own, which scrolls. */
function scrolled(table, name) {
  return element("div", {class: "scroll", role: "region", "aria-label": name, tabindex: "0"}, [table]);
}

/** Draw a section anew: what was unfolded stays so, and what stands for the element with the focus gets it. */
function redrawn(section, draw) {
  const usable = () => [...section.querySelectorAll("button, summary, [tabindex]")];
  const held = section.contains(document.activeElement) ? document.activeElement : null;
  const place = usable().indexOf(held);
  const unfolded = new Set([...section.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
  draw();
  for (const summary of section.querySelectorAll("details > summary")) {
    if (unfolded.has(summary.textContent)) summary.parentElement.open = true;
  }
  if (held === null || (held.isConnected && !held.disabled)) return;
  const named = ["column", "point", "turn"].filter((name) => held.dataset[name])
    .map((name) => section.querySelector(`[data-${name}="${held.dataset[name]}"]:enabled`));
  const other = held.dataset.turn ? section.querySelector("[data-turn]:enabled") : null;
  const sameKind = named.length === 0 && usable()[place]?.tagName === held.tagName ? usable()[place] : null;
  (named[0] ?? other ?? sameKind ?? section).focus({preventScroll: true});
}
