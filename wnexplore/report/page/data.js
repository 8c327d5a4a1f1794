// What the page holds, unpacked.

/** JSON values from a script element, or from text that a server sent. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Rows as objects by column, from columns. */
function rowsOf(content) {
  const names = shortNames(content.runs.map((run) => run.name));
  const rows = content.run_of.map((number, id) => ({id, number, run: names[number]}));
  for (const [name, column] of Object.entries({...content.rows, ...content.marks})) {
    if ("all" in column) for (const row of rows) row[name] = column.all;
    else if ("cells" in column) for (const row of rows) row[name] = column.cells[row.id];
    else for (const row of rows) row[name] = column.of[column.at[row.id]];
  }
  return rows;
}

/** Paths without the folders that all of them are in. */
function shortNames(paths) {
  const parts = paths.map((path) => path.split("/"));
  let same = 0;
  while (parts.every((part) => same < part.length - 1 && part[same] === parts[0][same])) same += 1;
  return parts.map((part) => part.slice(same).join("/"));
}

/** The column that tells several runs apart: their short names. */
const RUN = {name: "run", kind: "text", heading: "run", label: "Run", unit: "", decimals: null, better: null, within: [],
  unsure: false, interval: null, difference: false, bound: false, phrase: "{}", usual: null};

/** Rows in which figures of `columns` can be compared, of one run each, predicted latencies apart. */
function comparableGroups(rows, columns) {
  const keys = [...new Set(columns.flatMap((column) => column.within))];
  return grouped(rows, ["number", ...(keys.includes("batch_size") ? ["latency_is"] : []), ...keys]);
}

/** Rows by their values in some columns. */
function grouped(rows, names) {
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify(names.map((name) => row[name]));
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  return [...groups.values()];
}

/** A value of a column as captions say it: "batch 16". */
const phraseOf = (column, value) => column.phrase.replace("{}", () => formatted(column, value));

/** Distinct values by rows and column: controls and colours ask for the same ones at every step. */
const DISTINCT = new WeakMap();

/** The distinct values of a column among `rows`, sorted, without missing ones. */
function distinct(rows, column) {
  if (!DISTINCT.has(rows)) DISTINCT.set(rows, new Map());
  const known = DISTINCT.get(rows);
  if (!known.has(column.name)) {
    const values = [...new Set(rows.map((row) => row[column.name]))].filter((value) => value !== null);
    known.set(column.name, values.sort((a, b) => orderOf(column, a, b)));
  }
  return known.get(column.name);
}

/** Whether `a` comes before `b` (below 0) or after it in a column. */
function orderOf(column, a, b) {
  if (column.kind === "multiplier") return settingOrder(comparable(column, a), comparable(column, b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en");
}

function settingOrder(a, b) {
  const rank = (value) => (value.stages ? 2 : value.over ? 1 : 0);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (a.stages) {
    const [ours, theirs] = [[...a.stages], [...b.stages]];
    for (let at = 0; at < Math.min(ours.length, theirs.length); at += 1) {
      const order = ours[at][0] - theirs[at][0] || settingOrder(ours[at][1], theirs[at][1]);
      if (order) return order;
    }
    return ours.length - theirs.length;
  }
  if (a.over) return a.over - b.over;
  const order = a.n * b.d - b.n * a.d;
  return order < 0n ? -1 : order > 0n ? 1 : 0;
}
