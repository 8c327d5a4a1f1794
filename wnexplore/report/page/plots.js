// The plots of the page: what each of them draws of the rows, and what a click or a brush in it does.

/** Draw each plot, or give the one that is there its new data. */
async function drawCharts(pairs, color, {shown, inside}, version) {
  const look = looksOf(color, page.rows, page.content.looks);
  // All have their places first: a plot is as wide as its place then.
  pairs.forEach((pair, at) => plotOf(pair, at) ?? byId(pair.host).append(element("figure", {class: "chart"})));
  const order = pairs.map((_, place) => place).sort((a, b) => Number(inSight(pairs[b], b)) - Number(inSight(pairs[a], a)));
  for (const place of order) {
    const pair = pairs[place];
    const columns = {x: page.columns.get(pair.x), y: page.columns.get(pair.y), color, size: page.columns.get(pair.size)};
    const {data, front, note} = dataOf(shown, inside, columns, look);
    const brush = brushOf(columns);
    const key = JSON.stringify([pair, color.name, look?.domain, dark(), data.length > MANY, data.some((datum) => datum.predicted)]);
    const description = `${columns.y.label} over ${columns.x.label}, ${data.length} points; the table below has them all`;
    const old = page.views[place];
    if (old?.key === key && old.brush === JSON.stringify(brush)) {
      old.caption.replaceChildren(...note);
      await old.view.data("points", data).data("front", front).runAsync();
      describe(old.into, description);
    } else {
      await drawChart(place, pair, columns, scatterSpec(columns, look, data, brush), {data, front, note, brush, key, description});
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

async function drawChart(place, pair, columns, spec, {data, front, note, brush, key, description}) {
  page.views[place]?.view.finalize();
  const into = element("div", {class: "view"});
  const caption = element("figcaption", {}, note);
  const figure = plotOf(pair, place);
  figure.dataset.pair = `${pair.x},${pair.y}`;
  figure.replaceChildren(into, caption);
  const view = await chartIn(into, spec, description, {points: data, front},
    {many: data.length > MANY, said: (id) => tooltipOf(page.rows[id], columns)});
  const mine = page.views[place] = {key, view, into, caption, brush: JSON.stringify(brush)};
  // Only what a hand draws selects: a rectangle also changes with the scales under it.
  let pressed = false;
  let waiting;
  into.addEventListener("pointerdown", () => { pressed = true; });
  view.addSignalListener("brush", (name, value) => {
    clearTimeout(waiting);
    if (pressed) waiting = setTimeout(() => select(mine, columns, value), 150);
  });
  view.addEventListener("click", (event, item) => {
    if (item?.datum?.id === undefined) return;
    // The rectangle is gone, the selection is not.
    clearTimeout(waiting);
    mine.brush = "null";
    if (!go({...page.state, point: page.rows[item.datum.id].key})) apply();
  });
}

/** Select what a rectangle holds; an empty one, everything. */
function select(mine, columns, value) {
  const next = withoutSelection();
  const ends = {};
  for (const field of ["x", "y"]) {
    if (!value[field]) continue;
    ends[field] = value[field].map((end) => Number(end.toPrecision(5))).sort((a, b) => a - b);
    next[`in.${columns[field].name}`] = ends[field].join("~");
  }
  mine.brush = JSON.stringify(ends.x && ends.y ? ends : null);
  go({...next, page: "1"});
}

/** The ends of the selection if it is one of a plot's two columns; else null. */
function brushOf({x, y}) {
  const selection = new Map(selectionOf(page.state));
  const [xs, ys] = [x, y].map((column) => selection.get(column.name));
  if (selection.size !== 2 || x === y || !xs || !ys || [...xs, ...ys].includes(null)) return null;
  return {x: xs, y: ys};
}

function tooltipOf(row, {x, y}) {
  const lines = [row.title, ...[x, y].map((column) => `${column.label}: ${shownCell(row, column)}`)];
  return (page.runs.length > 1 ? [row.run, ...lines] : lines).join("\n");
}

/** What a plot draws: the rows of the protocol that most have, with their front. */
function dataOf(shown, inside, columns, look) {
  const {x, y} = columns;
  const full = shown.filter((row) => row[x.name] !== null && row[y.name] !== null);
  const {rows, note} = ofOneProtocol(full, [x, y]);
  const once = onePerPoint(rows, columns, inside);
  const data = [];
  const front = [];
  const few = once.rows.length <= MANY;
  const both = x.better && y.better;
  for (const group of comparableGroups(once.rows, [x, y])) {
    const levels = both ? optimal(group, x, y) : group.map(() => 0);
    const drawn = group.map((row, at) =>
      datumOf(row, look, levels[at], columns, once.inside.has(row.id), few || levels[at] > 0));
    data.push(...drawn);
    if (both) front.push(...cornersOf(drawn, `${group[0].number} ${group[0].latency_is}`));
  }
  const lacking = [...new Set([x, y])].map((column) => [column, shown.filter((row) => row[column.name] === null).length]);
  const left = lacking.filter(([, count]) => count)
    .map(([{label}, count]) => ` ${count.toLocaleString("en")} row${count === 1 ? " has" : "s have"} no ${label}.`);
  return {data, front, note: [...note, ...left]};
}

/** The rows of the protocol that most have, of those under which `columns` were measured; of several a note that
 * says which it is. `more` are further columns in which the rows have to agree. */
function ofOneProtocol(rows, columns, more = []) {
  const names = [...new Set([...more, ...columns.flatMap((column) => column.within)])];
  const keys = names.filter((name) => new Set(rows.map((row) => row[name])).size > 1);
  const most = grouped(rows, keys).reduce((best, some) => (some.length > best.length ? some : best), []);
  if (keys.length === 0 || most.length === 0) return {rows: most, note: []};
  const texts = keys.map((name) => phraseOf(page.columns.get(name), most[0][name]));
  const button = element("button", {type: "button", class: "link", "data-focus": `choose-at.${keys[0]}`}, ["choose another"]);
  return {rows: most, note: [`At ${texts.join(", ")}`, element("span", {class: "screen"}, ["; ", button]), "."]};
}

/** Once each point and training, where nothing that a plot shows depends on how it was timed: at the protocol of
 * the answer if there is such a row. A point is inside if one of its rows is. */
function onePerPoint(rows, {x, y, color, size}, inside) {
  const timing = page.columns.get("latency_ms").within;
  const own = [...timing, "latency_is", "warnings", "stopped_by", "status"];
  const timed = (column) => column && [column.name, ...column.within].some((name) => own.includes(name));
  if ([x, y, color, size].some(timed)) return {rows, inside};
  const points = new Map();
  for (const row of rows) {
    const key = JSON.stringify([pointOf(row.key), ...page.columns.get(page.content.score).within.map((name) => row[name])]);
    if (!points.has(key)) points.set(key, []);
    points.get(key).push(row);
  }
  const usual = page.runs.map(({answer}) => timing.filter((name) => name in (answer.protocol ?? {})));
  const answers = (row) => usual[row.number].every((name) => row[name] === page.runs[row.number].answer.protocol[name]);
  const found = [...points.values()].map((same) => ({row: same.find(answers) ?? same[0], same}));
  return {
    rows: found.map(({row}) => row),
    inside: new Set(found.filter(({same}) => same.some((row) => inside.has(row.id))).map(({row}) => row.id)),
  };
}

/** The heat map of a column over M and G: the means of the rows of one run and one protocol. */
async function drawHeat(rows, column) {
  const section = byId("heat-section");
  const whole = page.rows.filter((row) => row.M !== null && !String(row.M).includes(":") && !String(row.G).includes(":"));
  section.hidden = column === undefined || new Set(whole.map((row) => `${row.M} ${row.G}`)).size < 2;
  if (section.hidden) return;
  const [M, G] = ["M", "G"].map((name) => page.columns.get(name));
  const there = new Set(whole.map((row) => row.id));
  const full = rows.filter((row) => there.has(row.id) && row[column.name] !== null);
  const one = ofOneProtocol(full, [column], page.runs.length > 1 ? ["run"] : []);
  const once = onePerPoint(one.rows, {x: column, y: column}, new Set()).rows;
  const means = grouped(once, ["M", "G"]).map((same) => {
    const mean = same.reduce((sum, row) => sum + row[column.name], 0) / same.length;
    return {M: same[0].M, G: same[0].G, mean, count: same.length,
      text: formatted(column, column.kind === "whole" ? Math.round(mean) : mean),
      tooltip: `M=${same[0].M} G=${same[0].G}: mean of ${same.length} point${same.length === 1 ? "" : "s"}`};
  });
  const [low, high] = [Math.min(...means.map((cell) => cell.mean)), Math.max(...means.map((cell) => cell.mean))];
  for (const cell of means) {
    const share = high > low ? (cell.mean - low) / (high - low) : 0;
    // From here on black has more contrast than white.
    cell.bright = (column.better === "smaller" ? 1 - share : share) > 0.43;
  }
  const into = element("div", {class: "view"});
  const mean = means.some((cell) => cell.count > 1) ? [" Each cell is the mean over the points shown."] : [];
  byId("heat").replaceChildren(element("figure", {class: "chart"}, [into, element("figcaption", {}, [...one.note, ...mean])]));
  page.heat?.finalize();
  page.heat = await chartIn(into, heatSpec(column, distinct(whole, M), distinct(whole, G)),
    `${column.label} over M and G`, {cells: means});
}
