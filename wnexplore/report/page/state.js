// What is shown, kept in the address: a view can be sent, and Back goes back.

const USUAL = {where: "", x: "", y: "", color: "method", size: "", heat: "", sort: "", all: "", page: "1", point: ""};

/** The state in an address's fragment: texts by name; "min.COLUMN" and "max.COLUMN" are budgets, "in.COLUMN"
 * the bounds of the selection, "at.COLUMN" a part of the protocol. */
function stateOf(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = {...USUAL};
  for (const [name, value] of given) {
    if (name in USUAL || /^(min|max|in|at)\.\w+$/.test(name)) state[name] = value;
  }
  return state;
}

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
    .map(([name, text]) => [name, text.split("~").map((end) => (end === "" ? null : Number(end)))])
    .filter(([, ends]) => ends.length === 2 && ends.every((end) => !Number.isNaN(end)));
}
