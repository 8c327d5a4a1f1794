// What is shown, kept in the address: a view can be sent, and Back goes back.

/** The page: its content, its state, and the views of its plots by their places. */
const page = {views: [], version: 0, received: 0};
const byId = (id) => document.getElementById(id);

const USUAL = {where: "", x: "", y: "", color: "", size: "", heat: "", sort: "", all: "", page: "1", point: ""};

/** The state in an address's fragment: texts by name; "min.COLUMN" and "max.COLUMN" are budgets, "in.COLUMN"
 * the bounds of the selection, "at.COLUMN" a part of the protocol. What means nothing here is left out. */
function stateOf(fragment, columns, rows) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = {...USUAL};
  for (const [name, value] of given) {
    const [, kind, column] = /^(min|max|in|at)\.(\w+)$/.exec(name) ?? [];
    if (Object.hasOwn(USUAL, name) || isEntry(kind, columns.get(column), value, rows)) state[name] = value;
  }
  return state;
}

function isEntry(kind, column, value, rows) {
  if (column === undefined) return false;
  if (kind === "at") return rows.some((row) => String(row[column.name]) === value);
  if (column.kind === "text" || column.kind === "multiplier") return false;
  if (kind !== "in") return isNumber(value);
  const ends = value.split("~");
  return ends.length === 2 && ends.every((end) => end === "" || isNumber(end));
}

const isNumber = (text) => text.trim() !== "" && Number.isFinite(Number(text));

/** The fragment of a state, without what is usual. */
function fragmentOf(state) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== "" && value !== USUAL[name]) given.set(name, value);
  }
  return given.toString();
}

/** The entries "KIND.COLUMN" of a state, by column. */
function entriesOf(state, kind) {
  return Object.entries(state)
    .filter(([name, value]) => name.startsWith(`${kind}.`) && value !== "")
    .map(([name, value]) => [name.slice(kind.length + 1), value]);
}

/** The bounds of the selection by column. */
function selectionOf(state) {
  return entriesOf(state, "in")
    .map(([name, text]) => [name, text.split("~").map((end) => (end === "" ? null : Number(end)))]);
}

const withoutSelection = () => Object.fromEntries(Object.entries(page.state).filter(([name]) => !name.startsWith("in.")));

/** Show another state; what was shown is a step back. Whether it is another one. */
function go(state) {
  const fragment = fragmentOf(state);
  if (fragment === fragmentOf(page.state)) return false;
  location.hash = fragment;
  return true;
}

/** The row that an address names: itself, or else one of the same point, as it was before it was timed. */
function rowOf(key) {
  const point = pointOf(key);
  return page.rows.find((row) => row.key === key) ?? page.rows.find((row) => pointOf(row.key) === point);
}

/** What the rows of one point of one run have in common in their keys. */
const pointOf = (key) => key.split("-")[0];
