// The page: one state, in the address; what it says is filtered once and drawn everywhere.

const page = {views: [], version: 0};
const byId = (id) => document.getElementById(id);

async function begin(dataText, detailsText) {
  page.content = await unpacked(dataText);
  page.detailsText = detailsText;
  page.details = null;
  page.columns = new Map(page.content.columns.map((column) => [column.name, column]));
  page.runs = page.content.runs;
  shownCell.worthless = page.content.worthless;
  page.rows = rowsOf(page.content);
  const varying = [...page.columns.values()].filter((column) => page.content.axes.includes(column.name)
    && !["method", "M", "G"].includes(column.name) && distinct(page.rows, column).length > 1);
  for (const row of page.rows) row.title = titleOf(row, varying);
  markOptimal();
  drawAnswers();
  drawRuns();
  drawComparisons();
  byId("main").hidden = false;
  byId("status").textContent = page.runs.map((run) => run.dates
    ? `${run.name}: ${run.dates[0].slice(0, 10)}${run.dates[1].slice(0, 10) === run.dates[0].slice(0, 10) ? "" : ` to ${run.dates[1].slice(0, 10)}`}`
    : run.name).join(" · ");
  byId("made").textContent = `Made by wnexplore ${page.content.version}. This file requests nothing.`;
  await apply(true);
}

function titleOf(row, varying) {
  const parts = [page.content.looks.methods[row.method]?.label ?? row.method];
  if (row.M !== null) parts.push(`M=${row.M} G=${row.G}`);
  for (const column of varying) {
    if (row[column.name] !== null && row[column.name] !== undefined) {
      parts.push(column.phrase.replace("{}", formatted(column, row[column.name])));
    }
  }
  return parts.join(" · ");
}

/** Marks as the terminal's table has them: in top-1 and FLOPs, where something was trained. */
function markOptimal() {
  const [top1, flops] = ["top1", "flops"].map((name) => page.columns.get(name));
  for (const group of comparableGroups(page.rows, [top1, flops])) {
    const levels = optimal(group, flops, top1);
    group.forEach((row, at) => { row.optimal = levels[at] > 0; });
  }
}

/** Rows in which figures of `columns` can be compared, of one run each, predicted latencies apart. */
function comparableGroups(rows, columns) {
  const keys = [...new Set(columns.flatMap((column) => column.within))];
  const timed = keys.includes("batch_size");
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.run, ...(timed ? [row.latency_is] : []), ...keys.map((name) => row[name])]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  return [...groups.values()];
}

function drawAnswers() {
  const section = byId("answers");
  section.replaceChildren(byId("answer-title"), ...page.runs.map((run) => {
    const {answer} = run;
    const name = page.runs.length > 1 ? [element("h3", {}, [run.name])] : [];
    if (answer.none) return element("div", {class: "answer"}, [...name, element("p", {}, [answer.none])]);
    const sure = answer.alike === 0
      ? `No other of the ${answer.of} points can be the best in top-1 within the intervals.`
      : `${answer.alike} of the ${answer.of - 1} others can't be told apart from the best in top-1.`;
    return element("div", {class: "answer"}, [
      ...name,
      element("p", {class: "take"}, [answer.title]),
      element("p", {}, [`Why: ${answer.why}.`]),
      element("p", {}, [`How sure: ${sure}`]),
      ...answer.among.map((line) => element("p", {class: "note"}, [line])),
      copied("In Python", answer.python),
      element("details", {}, [
        element("summary", {}, ["The runner-up, and what overlaps"]),
        textTable(answer.table, "The point to take, the runner-up and their rivals"),
        ...answer.table.caption.slice(1).map((line) => element("p", {class: "note"}, [line])),
      ]),
    ]);
  }));
}

function drawRuns() {
  byId("swept").replaceChildren(byId("swept-title"), ...page.runs.flatMap((run) => [
    ...(page.runs.length > 1 ? [element("h3", {}, [run.name])] : []),
    facts(run.facts),
    element("details", {}, [element("summary", {}, ["Versions"]), facts(run.versions)]),
    ...run.notes.map((line) => element("p", {class: "note"}, [line])),
  ]));
}

function drawComparisons() {
  const section = byId("compare");
  section.hidden = page.content.comparisons.length === 0;
  section.replaceChildren(byId("compare-title"), ...page.content.comparisons.map((part) => {
    const label = page.columns.get(part.column).label;
    return element("div", {}, [
      element("h3", {}, [label]),
      ...part.title.split("\n").map((line) => element("p", {class: "note"}, [line])),
      textTable(part, label),
      ...[...part.caption, ...part.lonely].map((line) => element("p", {class: "note"}, [line])),
    ]);
  }));
}

/** The rows that filter, budgets and protocol leave; and those of them in the selection. */
function selected() {
  const {state, columns} = page;
  const problem = byId("where-problem");
  let keep = () => true;
  problem.textContent = "";
  byId("where").removeAttribute("aria-invalid");
  if (state.where.trim()) {
    try {
      keep = parseWhere(state.where, columns);
    } catch (error) {
      if (!(error instanceof WhereError)) throw error;
      problem.textContent = error.message;
      byId("where").setAttribute("aria-invalid", "true");
    }
  }
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

/** The pairs of columns of the first plots: accuracy, or else latency, over what it costs. */
function headlines() {
  const has = (name) => page.rows.some((row) => row[name] !== null);
  const latency = has("latency_ms") ? ["latency_ms"] : [];
  if (has("top1")) return ["flops", "params", ...latency].map((x) => [x, "top1"]);
  if (latency.length) return ["flops", "params"].map((x) => [x, "latency_ms"]);
  return [["flops", "params"]];
}

const numericColumns = () => [...page.columns.values()].filter((column) => column.kind !== "text"
  && column.kind !== "multiplier" && !column.bound && page.rows.some((row) => row[column.name] !== null));

/** Draw what the state says. */
async function apply(anew) {
  const state = page.state = stateOf(location.hash);
  const version = page.version += 1;
  const figures = numericColumns();
  const names = figures.map((column) => column.name);
  const heads = headlines();
  const free = {
    x: names.includes(state.x) ? state.x : ["latency_ratio", "params", "flops"].find((name) => names.includes(name)),
    y: names.includes(state.y) ? state.y : ["test_loss", "top1", "latency_ms", "flops", "params"].find((name) => names.includes(name)),
  };
  const found = selected();
  if (anew || document.activeElement?.closest("#controls, #axes, #heat-fields") === null || !page.controls) {
    drawControls(figures, heads, free);
  }
  drawRows(found);
  document.documentElement.dataset.shown = String(version);
  drawPoint();
  if (page.refocus !== undefined) {
    (document.querySelector(`[data-point="${page.refocus}"]`) ?? byId("points")).focus();
    page.refocus = undefined;
  }
  const pairs = [...heads.map(([x, y]) => ({x, y, size: "", host: "headline"})), {...free, size: state.size, host: "free"}];
  await drawCharts(pairs, found, version);
  if (version !== page.version) return;
  await drawHeat(found.chosen, figures);
  if (version === page.version) document.documentElement.dataset.drawn = String(version);
}

function drawControls(figures, heads, free) {
  const {state} = page;
  byId("where").value = state.where;
  byId("all-columns").checked = state.all === "1";
  const protocols = [...new Set([...page.columns.values()].flatMap((column) => column.within))]
    .map((name) => page.columns.get(name))
    .filter((column) => distinct(page.rows, column).length > 1);
  byId("protocols").replaceChildren(...protocols.map((column) => choice(`at.${column.name}`, column.label,
    [["", "all"], ...distinct(page.rows, column).map((value) => [String(value), formatted(column, value)])],
    state[`at.${column.name}`] ?? "")));
  const budgets = figures.filter((column) => column.better && column.name !== "fvcore_flops" && distinct(page.rows, column).length > 1);
  byId("budgets").replaceChildren(byId("budgets").querySelector("legend"), ...budgets.map((c) => budget(c, page.rows, state)));
  byId("budgets").hidden = budgets.length === 0;
  const selection = new Map(selectionOf(state));
  const ranged = new Set([...heads.flat(), free.x, free.y, ...selection.keys()]);
  byId("ranges").replaceChildren(byId("ranges").querySelector("legend"), ...figures
    .filter((column) => ranged.has(column.name)).flatMap((column) => range(column, selection.get(column.name))));
  const options = figures.map((column) => [column.name, column.label]);
  const colours = [...page.columns.values()].filter((column) => !column.bound && column.name !== "error"
    && distinct(page.rows, column).length > 1 && (column.kind !== "text" || distinct(page.rows, column).length <= 40));
  byId("axes").replaceChildren(
    choice("x", "Horizontal", options, free.x),
    choice("y", "Vertical", options, free.y),
    choice("color", "Colour of all plots", [["method", "Method"],
      ...colours.filter(({name}) => name !== "method").map(({name, label}) => [name, label])], state.color),
    choice("size", "Size", [["", "equal"], ...options], state.size),
  );
  byId("heat-fields").replaceChildren(choice("heat", "Figure", options, heatColumn(figures).name));
  page.controls = true;
}

function heatColumn(figures) {
  return page.columns.get(page.state.heat)
    ?? figures.find(({name}) => name === "top1") ?? figures.find(({name}) => name === "latency_ratio") ?? figures[0];
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
  const turn = (to, text) => {
    const button = element("button", {type: "button", "data-page": to}, [text]);
    button.disabled = to < 1 || to > pages;
    return button;
  };
  byId("pages").replaceChildren(...(pages > 1 ? [turn(number - 1, "Previous"), turn(number + 1, "Next")] : []));
  const {mark_signs: signs, advice} = page.content;
  const kinds = new Set(rows.flatMap((row) => row.warnings?.split("; ") ?? []));
  byId("legend").replaceChildren(...[
    rows.some((row) => row.optimal) && `${signs.optimal} Pareto-optimal in top-1 (larger) and FLOPs (smaller)`,
    rows.some((row) => row.alike) && `${signs.alike} can't be told apart from plain: the interval of Δ top-1 holds 0, or too few seeds give none`,
    rows.some((row) => row.latency_is === "predicted") && `${signs.predicted} latency predicted from other networks' measured ones`,
    ...[...kinds].map((kind) => `${signs.warning} ${kind.replaceAll("_", " ")}${kind in advice ? `: ${advice[kind]}` : ""}`),
    rows.some((row) => row.status !== "ok") && `${signs.failed} a measurement failed: open the point`,
  ].filter(Boolean).map((line) => element("p", {class: "note"}, [line])));
}

async function drawPoint() {
  const section = byId("point");
  const row = page.rows[Number(page.state.point)];
  if (page.state.point === "" || row === undefined) {
    section.hidden = true;
    page.open = undefined;
    return;
  }
  page.details ??= await unpacked(page.detailsText);
  if (page.open === row.id) return;
  page.open = row.id;
  drawDetails(section, row, page);
  section.hidden = false;
  section.focus();
}

/** Draw each plot, or give the one that is there its new data. */
async function drawCharts(pairs, {shown, inside}, version) {
  const color = page.columns.get(page.state.color) ?? page.columns.get("method");
  const look = looksOf(color, page.rows, page.content.looks);
  // All have their places first: a plot is as wide as its place then.
  pairs.forEach((pair, at) => plotOf(pair, at) ?? byId(pair.host).append(element("figure", {class: "chart"})));
  const order = pairs.map((_, place) => place).sort((a, b) => Number(inSight(pairs[b], b)) - Number(inSight(pairs[a], a)));
  for (const place of order) {
    const pair = pairs[place];
    const columns = {x: page.columns.get(pair.x), y: page.columns.get(pair.y), color, size: page.columns.get(pair.size)};
    const {data, front, note} = dataOf(shown, inside, columns, look);
    const key = JSON.stringify([pair, color.name, dark(), data.length > MANY, data.some((datum) => datum.predicted)]);
    const old = page.views[place];
    if (old?.key === key) {
      old.caption.textContent = note;
      await old.view.data("points", data).data("front", front).runAsync();
    } else {
      await drawChart(place, pair, columns, look, data, front, note, key);
    }
    if (version !== page.version) return;
    // What is in sight is seen before the rest is drawn.
    await new Promise((resume) => setTimeout(resume));
  }
}

const plotOf = (pair, place) => byId(pair.host).querySelectorAll(":scope > figure")[pair.host === "free" ? 0 : place];

/** Whether a plot is on the screen. */
function inSight(pair, place) {
  const box = plotOf(pair, place)?.getBoundingClientRect();
  return box !== undefined && box.bottom > 0 && box.top < innerHeight;
}

async function drawChart(place, pair, columns, look, data, front, note, key) {
  page.views[place]?.view.finalize();
  const into = element("div", {class: "view"});
  const caption = element("figcaption", {}, [note]);
  const figure = plotOf(pair, place);
  figure.dataset.pair = `${pair.x},${pair.y}`;
  figure.replaceChildren(into, caption);
  const description = `${columns.y.label} over ${columns.x.label}, ${data.length} points; the table below has them all`;
  const view = await chartIn(into, scatterSpec(columns, look, data), description,
    {points: data, front}, {many: data.length > MANY, said: (id) => tooltipOf(page.rows[id], columns)});
  page.views[place] = {key, view, caption};
  let waiting;
  view.addSignalListener("brush", (name, value) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const next = withoutSelection();
      for (const [field, column] of [["x", columns.x], ["y", columns.y]]) {
        if (value[field]) next[`in.${column.name}`] = value[field].map((end) => Number(end.toPrecision(5))).sort((a, b) => a - b).join("~");
      }
      go(next);
    }, 150);
  });
  view.addEventListener("click", (event, item) => {
    if (item?.datum?.id !== undefined) go({...page.state, point: String(item.datum.id)});
  });
}

function tooltipOf(row, {x, y}) {
  return [row.title, ...[x, y].map((column) => `${column.label}: ${shownCell(row, column)}`)].join("\n");
}

/** What a plot draws: the rows of the protocol that most have, with their front. */
function dataOf(shown, inside, columns, look) {
  const {x, y} = columns;
  const full = shown.filter((row) => row[x.name] !== null && row[y.name] !== null);
  const keys = [...new Set([...x.within, ...y.within])].filter((name) => new Set(full.map((row) => row[name])).size > 1);
  const protocols = new Map();
  for (const row of full) {
    const key = JSON.stringify(keys.map((name) => row[name]));
    if (!protocols.has(key)) protocols.set(key, []);
    protocols.get(key).push(row);
  }
  const rows = [...protocols.values()].reduce((most, some) => (some.length > most.length ? some : most), []);
  const said = keys.length && rows.length
    ? `At ${keys.map((name) => page.columns.get(name).phrase.replace("{}", formatted(page.columns.get(name), rows[0][name]))).join(", ")}; choose another above.`
    : "";
  const data = [];
  const front = [];
  const few = rows.length <= MANY;
  const both = x.better && y.better;
  for (const group of comparableGroups(rows, [x, y])) {
    const levels = both ? optimal(group, x, y) : group.map(() => 0);
    const drawn = group.map((row, at) => datumOf(row, look, levels[at], columns, inside.has(row.id), few || levels[at] > 0));
    data.push(...drawn);
    if (both) front.push(...cornersOf(drawn, `${group[0].run} ${group[0].latency_is}`));
  }
  const missing = shown.length - full.length;
  const left = missing ? ` ${missing.toLocaleString("en")} rows lack one of the figures.` : "";
  return {data, front, note: `${said}${left}`.trim()};
}

async function drawHeat(rows, figures) {
  const column = heatColumn(figures);
  const whole = page.rows.filter((row) => row.M !== null && !String(row.M).includes(":") && !String(row.G).includes(":"));
  const section = byId("heat-section");
  const [M, G] = ["M", "G"].map((name) => page.columns.get(name));
  section.hidden = new Set(whole.map((row) => `${row.M} ${row.G}`)).size < 2;
  if (section.hidden) return;
  const cells = new Map();
  const there = new Set(whole.map((row) => row.id));
  for (const row of rows) {
    if (!there.has(row.id) || row[column.name] === null) continue;
    const key = `${row.M} ${row.G}`;
    if (!cells.has(key)) cells.set(key, {M: row.M, G: row.G, values: []});
    cells.get(key).values.push(row[column.name]);
  }
  const means = [...cells.values()].map(({M: m, G: g, values}) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return {M: m, G: g, mean, text: formatted(column, column.kind === "whole" ? Math.round(mean) : mean),
      tooltip: `M=${m} G=${g}: mean of ${values.length} row${values.length === 1 ? "" : "s"}`};
  });
  const [low, high] = [Math.min(...means.map((cell) => cell.mean)), Math.max(...means.map((cell) => cell.mean))];
  for (const cell of means) {
    const share = high > low ? (cell.mean - low) / (high - low) : 0;
    cell.bright = (column.better === "smaller" ? 1 - share : share) > 0.6;
  }
  const into = element("div", {class: "view"});
  const most = Math.max(0, ...[...cells.values()].map(({values}) => values.length));
  const caption = element("figcaption", {}, [most > 1 ? "Each cell is the mean over the rows shown." : ""]);
  byId("heat").replaceChildren(element("figure", {class: "chart"}, [into, caption]));
  page.heat?.finalize();
  page.heat = await chartIn(into, heatSpec(column, distinct(whole, M), distinct(whole, G)),
    `${column.label} over M and G`, {cells: means});
}

const withoutSelection = () => Object.fromEntries(Object.entries(page.state).filter(([name]) => !name.startsWith("in.")));

/** Show another state; what was shown is a step back. */
function go(state) {
  const fragment = fragmentOf(state);
  if (fragment !== fragmentOf(page.state)) location.hash = fragment;
}

function listen() {
  window.addEventListener("hashchange", () => apply(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(true));
  byId("skip").addEventListener("click", () => byId("points").focus());
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
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
    else if (dataset.copy) copy(button);
    else if (id === "close-point") closePoint();
    else if (id === "reset") reset();
    else if (id === "csv") download();
  });
}

/** A column's next order: the better end first, then the other, then as measured. */
function nextSort(name) {
  const first = page.columns.get(name).better === "larger" ? `-${name}` : name;
  const second = first === name ? `-${name}` : name;
  return {[first]: second, [second]: ""}[page.state.sort] ?? first;
}

function closePoint() {
  page.refocus = page.state.point;
  go({...page.state, point: ""});
}

function reset() {
  const kept = Object.entries(withoutSelection()).filter(([name]) => !/^(min|max|at)\./.test(name));
  // Brushes are drawn by the plots themselves.
  for (const {view} of page.views) view.finalize();
  page.views = [];
  byId("headline").replaceChildren();
  byId("free").replaceChildren();
  page.controls = false;
  const fragment = fragmentOf({...Object.fromEntries(kept), where: "", page: "1"});
  if (fragment === fragmentOf(page.state)) apply(true);
  else location.hash = fragment;
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
  const text = csvOf(page.table.rows, page.table.columns, page);
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
  await begin(byId("data").textContent, byId("details-data").textContent);
  const {live} = document.body.dataset;
  if (live) follow(live);
}

main().catch((error) => {
  byId("status").textContent = `This page can't be shown: ${error.message}`;
  throw error;
});
