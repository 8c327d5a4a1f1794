// The page: one state, in the address; what it says is filtered once and drawn everywhere.

async function begin(dataText, detailsText) {
  page.content = await unpacked(dataText);
  page.detailsText = detailsText;
  page.details = null;
  page.received += 1;
  page.runs = page.content.runs;
  const several = page.runs.length > 1;
  page.columns = new Map([...(several ? [RUN] : []), ...page.content.columns].map((column) => [column.name, column]));
  shownCell.worthless = page.content.worthless;
  page.rows = rowsOf(page.content);
  const varying = [...page.columns.values()].filter((column) => page.content.axes.includes(column.name)
    && !["method", "M", "G"].includes(column.name) && distinct(page.rows, column).length > 1);
  for (const row of page.rows) nameIt(row, varying);
  markOptimal();
  redrawn(byId("answers"), drawAnswers);
  redrawn(byId("swept"), drawRuns);
  redrawn(byId("compare"), drawComparisons);
  byId("main").hidden = false;
  byId("status").textContent = page.runs.map(datesOf).join(" · ");
  byId("made").textContent = `Made by wnexplore ${page.content.version}. This file requests nothing.`;
  await apply(true);
}

/** A row's label, which is its method's, and its title, which tells its point from all others. */
function nameIt(row, varying) {
  row.label = page.content.looks.methods[row.method]?.label ?? row.method;
  const axes = varying.filter((column) => row[column.name] !== null && row[column.name] !== undefined);
  row.title = [row.label, ...(row.M === null ? [] : [`M=${row.M} G=${row.G}`]),
    ...axes.map((column) => phraseOf(column, row[column.name]))].join(" · ");
}

/** Marks as the terminal's table has them: in the score and FLOPs, where something was trained. */
function markOptimal() {
  const [score, flops] = [page.content.score, "flops"].map((name) => page.columns.get(name));
  for (const group of comparableGroups(page.rows, [score, flops])) {
    const levels = optimal(group, flops, score);
    group.forEach((row, at) => { row.optimal = levels[at] > 0; });
  }
}

/** The rows that filter, budgets and protocol leave; and those of them in the selection. */
function selected() {
  const {state, columns} = page;
  const problem = byId("where-problem");
  let keep = () => true;
  let wrong = "";
  if (state.where.trim()) {
    try {
      keep = parseWhere(state.where, columns);
    } catch (error) {
      if (!(error instanceof WhereError)) throw error;
      wrong = error.message;
    }
  }
  if (problem.textContent !== wrong) problem.textContent = wrong;
  byId("where").setAttribute("aria-invalid", String(wrong !== ""));
  const limits = [
    ...entriesOf(state, "max").map(([name, text]) => (row) => row[name] !== null && row[name] <= Number(text)),
    ...entriesOf(state, "min").map(([name, text]) => (row) => row[name] !== null && row[name] >= Number(text)),
    ...entriesOf(state, "at").map(([name, text]) => (row) => String(row[name]) === text),
  ];
  const shown = page.rows.filter((row) => keep(row) === true && limits.every((holds) => holds(row)));
  const selection = selectionOf(state);
  const inside = (row) => selection.every(([name, [low, high]]) => row[name] !== null && row[name] !== undefined
    && (low === null || row[name] >= low) && (high === null || row[name] <= high));
  const chosen = shown.filter(inside);
  return {shown, chosen, inside: new Set(chosen.map((row) => row.id))};
}

/** What hides rows, in words. */
function limitsOf() {
  const {state, columns} = page;
  const label = (name) => columns.get(name).label;
  const text = (name, value) => formatted(columns.get(name), value);
  const bound = (word, name, end) => (end === null ? "" : ` ${word} ${text(name, end)}`);
  return [
    ...(state.where.trim() && byId("where-problem").textContent === "" ? [`filter ${state.where}`] : []),
    ...entriesOf(state, "max").map(([name, given]) => `${label(name)} at most ${text(name, Number(given))}`),
    ...entriesOf(state, "min").map(([name, given]) => `${label(name)} at least ${text(name, Number(given))}`),
    ...entriesOf(state, "at").map(([name, given]) => `${label(name)}: ${given}`),
    ...selectionOf(state).map(([name, [low, high]]) => `${label(name)}${bound("from", name, low)}${bound("to", name, high)}`),
  ].join("; ");
}

const has = (name) => page.rows.some((row) => row[name] !== null);

/** The pairs of columns of the first plots: accuracy, or else latency, over what it costs. */
function headlines() {
  const {score} = page.content;
  const pairs = has(score) ? ["flops", "params", "latency_ms"].map((x) => [x, score])
    : has("latency_ms") ? ["flops", "params"].map((x) => [x, "latency_ms"])
      : [["flops", "params"]];
  return pairs.filter((pair) => pair.every(has));
}

const numericColumns = () => [...page.columns.values()].filter((column) => column.kind !== "text"
  && column.kind !== "multiplier" && !column.bound && has(column.name));

/** The columns that can colour plots, the usual one first. */
function colourColumns() {
  const usual = page.columns.get(page.runs.length > 1 ? "run" : "method");
  return [usual, ...[...page.columns.values()].filter((column) => {
    if (column === usual || column.bound || column.name === "error") return false;
    const count = distinct(page.rows, column).length;
    return (count > 1 || column.name === "method") && (column.kind !== "text" || count <= 40);
  })];
}

/** What is chosen for the plots, as far as the address names columns that there are. */
function chosenOf(figures, colours) {
  const {state} = page;
  const names = figures.map((column) => column.name);
  const first = (given, ...usual) => [given, ...usual].find((name) => names.includes(name)) ?? names[0];
  return {
    x: first(state.x, "latency_ratio", "params", "flops"),
    y: first(state.y, "test_loss", page.content.score, "latency_ms", "flops", "params"),
    size: names.includes(state.size) ? state.size : "",
    heat: first(state.heat, page.content.score, "latency_ratio"),
    color: (colours.find(({name}) => name === state.color) ?? colours[0]).name,
  };
}

/** Draw what the state says; with `typing` what is being typed stays. */
async function apply(typing = false) {
  page.state = stateOf(location.hash, page.columns, page.rows);
  const version = page.version += 1;
  const figures = numericColumns();
  const colours = colourColumns();
  const chosen = chosenOf(figures, colours);
  const heads = headlines();
  const {x, y, size} = chosen;
  const ranged = new Set([...heads.flat(), x, y, ...selectionOf(page.state).map(([name]) => name)]);
  drawControls(figures, colours, chosen, ranged, typing);
  const found = selected();
  redrawn(byId("points"), () => drawRows(found));
  document.documentElement.dataset.shown = String(version);
  drawPoint();
  byId("trade-hint").textContent = hintOf(heads);
  // Axes alone are no figures.
  const measured = figures.some(({name}) => !page.content.axes.includes(name));
  byId("free-section").hidden = !measured;
  const pairs = [...heads.map(([across, up]) => ({x: across, y: up, size: "", host: "headline"})),
    ...(measured ? [{x, y, size, host: "free"}] : [])];
  await drawCharts(pairs, page.columns.get(chosen.color), found, version);
  if (version !== page.version) return;
  await drawHeat(found.chosen, measured ? page.columns.get(chosen.heat) : undefined);
  if (version === page.version) document.documentElement.dataset.drawn = String(version);
}

function hintOf(heads) {
  if (heads.length === 0) return "Nothing to draw: no point has two figures to set against each other. The table says what was measured, and what failed.";
  const predicted = page.rows.some((row) => row.latency_is === "predicted") ? " Hollow: predicted." : "";
  return `Bars: 95 % intervals. Line: Pareto front. Dashed ring: may be on it within the intervals.${predicted}`;
}

function drawRows({shown, chosen}) {
  const rows = sorted(chosen, page.state.sort, page.columns);
  const columns = tableColumns(page.columns, page.rows, page.state.all === "1");
  const {pages, number} = drawTable(byId("table"), rows, columns, page);
  page.table = {rows, columns};
  const points = (count) => `${count.toLocaleString("en")} row${count === 1 ? "" : "s"}`;
  const selection = chosen.length < shown.length ? `, ${points(chosen.length)} in the selection` : "";
  byId("shown").textContent = `${points(shown.length)} of ${page.rows.length.toLocaleString("en")}${selection}`
    + (pages > 1 ? `; page ${number} of ${pages}` : "");
  const limits = limitsOf();
  byId("limits").textContent = limits ? `Shown are rows with ${limits}.` : "";
  const turn = (to, text) => {
    const button = element("button", {type: "button", "data-page": to, "data-turn": text}, [text]);
    button.disabled = to < 1 || to > pages;
    return button;
  };
  byId("pages").replaceChildren(...(pages > 1 ? [turn(number - 1, "Previous"), turn(number + 1, "Next")] : []));
  const {mark_signs: signs, advice} = page.content;
  const score = page.columns.get(page.content.score).heading;
  const kinds = new Set(rows.flatMap((row) => row.warnings?.split("; ") ?? []));
  byId("legend").replaceChildren(...[
    rows.some((row) => row.optimal) && `${signs.optimal} Pareto-optimal in ${score} (larger) and FLOPs (smaller)`,
    rows.some((row) => row.alike) && `${signs.alike} can't be told apart from plain: the interval of Δ ${score} holds 0, or too few seeds give none`,
    rows.some((row) => row.latency_is === "predicted") && `${signs.predicted} latency predicted from other networks' measured ones`,
    ...[...kinds].map((kind) => `${signs.warning} ${kind.replaceAll("_", " ")}${kind in advice ? `: ${advice[kind]}` : ""}`),
    rows.some((row) => row.status !== "ok") && `${signs.failed} a measurement failed: open the point`,
  ].filter(Boolean).map((line) => element("p", {class: "note"}, [line])));
}

async function drawPoint() {
  const section = byId("point");
  const row = rowOf(page.state.point);
  if (row === undefined) {
    const held = section.contains(document.activeElement);
    section.hidden = true;
    if (held) (document.querySelector(`#table [data-point="${page.open}"]`) ?? byId("points")).focus();
    page.open = undefined;
    return;
  }
  page.details ??= unpacked(page.detailsText);
  const details = await page.details;
  // Another one may have been asked for meanwhile.
  if (rowOf(page.state.point) !== row) return;
  const look = `${page.received} ${dark()}`;
  if (page.open === row.key && page.openLook === look) return;
  const moved = page.open !== row.key;
  [page.open, page.openLook] = [row.key, look];
  redrawn(section, () => drawDetails(section, row, details));
  section.hidden = false;
  if (moved) section.focus();
}

function listen() {
  window.addEventListener("hashchange", () => apply());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(true));
  window.addEventListener("beforeprint", () => onPaper(true));
  window.addEventListener("afterprint", () => onPaper(false));
  byId("skip").addEventListener("click", () => byId("points").focus());
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.target.closest("input, select")) go({...page.state, point: ""});
  });
  document.addEventListener("change", (event) => {
    const {dataset, id, value, checked} = event.target;
    if (id === "where") go({...page.state, where: value, page: "1"});
    else if (id === "all-columns") go({...page.state, all: checked ? "1" : ""});
    else if (dataset.state) go({...page.state, [dataset.state]: value, page: "1"});
    else if (dataset.budget) go({...page.state, [dataset.budget]: valueAt(event.target), page: "1"});
    else if (dataset.range) {
      const ends = [0, 1].map((end) => byId(`range-${dataset.range}-${end}`).value);
      go({...page.state, [`in.${dataset.range}`]: ends.join("") === "" ? "" : ends.join("~"), page: "1"});
    }
  });
  document.addEventListener("input", (event) => {
    const {dataset} = event.target;
    if (dataset.budget) {
      const column = page.columns.get(dataset.budget.slice(4));
      event.target.nextElementSibling.textContent = budgetText(column, valueAt(event.target));
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button === null) return;
    const {dataset, id} = button;
    if (dataset.column) go({...page.state, sort: nextSort(dataset.column), page: "1"});
    else if (dataset.point) go({...page.state, point: dataset.point});
    else if (dataset.page) go({...page.state, page: dataset.page});
    else if (dataset.focus) byId(dataset.focus).focus();
    else if (dataset.copy) copy(button);
    else if (id === "close-point") go({...page.state, point: ""});
    else if (id === "reset") reset();
    else if (id === "csv") download();
  });
}

/** On paper all rows are there and nothing is folded; after it the page is as it was. */
function onPaper(begins) {
  page.printing = begins;
  redrawn(byId("points"), () => drawRows(selected()));
  if (begins) page.unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const folded of page.unfolded ?? []) folded.open = begins;
}

/** A column's next order: the better end first, then the other, then as measured. */
function nextSort(name) {
  const first = page.columns.get(name).better === "larger" ? `-${name}` : name;
  const second = first === name ? `-${name}` : name;
  return {[first]: second, [second]: ""}[page.state.sort] ?? first;
}

function reset() {
  const kept = Object.entries(withoutSelection()).filter(([name]) => !/^(min|max|at)\./.test(name));
  // Also what was typed and not yet shown.
  if (!go({...Object.fromEntries(kept), where: "", page: "1"})) apply();
}

async function copy(button) {
  const text = button.dataset.copy;
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    button.textContent = "Selected: copy it with the keyboard";
  }
  setTimeout(() => { button.textContent = before; }, 2000);
}

function download() {
  const text = csvOf(page.table.rows, page.table.columns);
  const link = element("a", {href: URL.createObjectURL(new Blob([text], {type: "text/csv"})), download: "points.csv"});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Ask the server for newer data, as long as there is one. */
async function follow(address) {
  for (let number = address.split("?")[1]; ;) {
    await new Promise((resume) => setTimeout(resume, 2000));
    let answer;
    try {
      answer = await fetch(`${address.split("?")[0]}?${number}`);
    } catch {
      byId("status").textContent = "The server has ended: this is the last state.";
      return;
    }
    if (answer.status === 200) {
      const [newer, data, details] = (await answer.text()).split(" ");
      number = newer;
      await begin(data, details);
    }
  }
}

async function main() {
  listen();
  // On a phone the bounds would fill the screen.
  byId("selection").open = innerWidth >= 640;
  await begin(byId("data").textContent, byId("details-data").textContent);
  const {live} = document.body.dataset;
  if (live) follow(live);
}

main().catch((error) => {
  byId("status").textContent = `This page can't be shown: ${error.message}`;
  throw error;
});
