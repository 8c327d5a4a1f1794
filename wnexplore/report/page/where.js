// The language of --where: the grammar and the answers are those of wnexplore.design.where.

const WORDS = ["and", "or", "not", "in"];
const SIGNS = ["==", "!=", "<", "<=", ">", ">="];
const TOKEN = new RegExp([
  "(?<space>\\s+)",
  "(?<number>(?:[0-9]{1,40}(?:\\.[0-9]{0,40})?|\\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?[kMGT]?)(?![\\p{L}\\p{N}_.])",
  "(?<word>[\\p{L}_][\\p{L}\\p{N}_.:-]*)",
  "(?<text>'[^']*'|\"[^\"]*\")",
  "(?<mark>==|!=|<=|>=|[<>()\\[\\],/+-])",
].join("|"), "uy");
const HINTS = {"=": ": write == for equal", "&": ": write and", "|": ": write or", "!": ": write != or not"};
const POWERS = {k: 3, M: 6, G: 9, T: 12};

class WhereError extends Error {}

/** A function of a row that says true, false, or null where a value is missing. Throws `WhereError`. */
function parseWhere(expression, columns) {
  const tokens = tokensOf(expression);
  let next = 0;
  let depth = 0;

  const wrong = (at, problem) => new WhereError(`filter, character ${at + 1}: ${problem}`);
  const fail = (expected) => {
    const token = tokens[next];
    const found = token.kind === "end" ? "the end" : `'${token.text.slice(0, 40)}'`;
    return wrong(token.at, `expected ${expected}, found ${found}`);
  };
  const take = (...texts) => {
    const token = tokens[next];
    if (!["mark", "keyword"].includes(token.kind) || !texts.includes(token.text)) return null;
    next += 1;
    return token.text;
  };
  const need = (text, expected) => {
    if (take(text) === null) throw fail(expected);
  };

  // In three-valued logic: `decisive` is the answer of one part that is the answer of all.
  const joined = (parts, decisive) => (parts.length === 1 ? parts[0] : (row) => {
    const answers = parts.map((part) => part(row));
    return answers.includes(decisive) ? decisive : answers.includes(null) ? null : !decisive;
  });

  function any() {
    const parts = [all()];
    while (take("or")) parts.push(all());
    return joined(parts, true);
  }

  function all() {
    const parts = [one()];
    while (take("and")) parts.push(one());
    return joined(parts, false);
  }

  const negated = (part) => (row) => {
    const answer = part(row);
    return answer === null ? null : !answer;
  };

  function one() {
    depth += 1;
    if (depth > 50) throw wrong(tokens[next].at, "nested more than 50 deep");
    let found;
    if (take("not")) {
      found = negated(one());
    } else if (take("(")) {
      found = any();
      need(")", "')'");
    } else {
      found = comparison();
    }
    depth -= 1;
    return found;
  }

  function comparison() {
    let left = value();
    const not = take("not") !== null;
    if (not || (tokens[next].kind === "keyword" && tokens[next].text === "in")) {
      need("in", "'in'");
      need("[", "'[' and a list");
      const parts = [compare(left, "==", value())];
      while (take(",")) parts.push(compare(left, "==", value()));
      need("]", "',' or ']'");
      const member = joined(parts, true);
      return not ? negated(member) : member;
    }
    let sign = take(...SIGNS);
    if (sign === null) {
      if (left.bare) throw unknown(left.token.text);
      throw fail("a comparison (== != < <= > >= in)");
    }
    const parts = [];
    while (sign !== null) {
      const right = value();
      parts.push(compare(left, sign, right));
      left = right;
      sign = take(...SIGNS);
    }
    return joined(parts, false);
  }

  const unknown = (name) => new WhereError(`unknown column '${name}'${nearest(name, [...columns.keys()])}`);

  function value() {
    const token = tokens[next];
    if (token.kind === "word" || token.kind === "text") {
      next += 1;
      const column = token.kind === "word" ? columns.get(token.text) : undefined;
      return {token, column, bare: token.kind === "word" && column === undefined};
    }
    if (token.kind === "number" || (token.kind === "mark" && "+-".includes(token.text))) {
      return {token, number: number(), bare: false};
    }
    throw fail("a column, a number or a text");
  }

  function number() {
    const sign = take("+", "-") === "-" ? -1n : 1n;
    let found = digits();
    if (take("/")) {
      const at = tokens[next].at;
      const divisor = digits();
      if (divisor.n === 0n) throw wrong(at, "division by zero");
      found = {n: found.n * divisor.d, d: found.d * divisor.n, float: found.float / divisor.float};
    }
    return {n: sign * found.n, d: found.d, float: Number(sign) * found.float};
  }

  function digits() {
    const token = tokens[next];
    if (token.kind !== "number") throw fail("a number");
    next += 1;
    return rational(token.text);
  }

  function compare(left, sign, right) {
    check(left, sign, right);
    return comparisonOf(side(left, right), sign, side(right, left));
  }

  const numeric = (v) => v.number !== undefined || (v.column !== undefined && v.column.kind !== "text");
  const settingText = (v, other) => {
    if (other.column?.kind !== "multiplier" || v.token.kind !== "text") return null;
    return canonical(v.token.text.slice(1, -1));
  };

  function check(left, sign, right) {
    const bare = [left, right].find((v) => v.bare);
    if (left.column === undefined && right.column === undefined) {
      if (bare) throw unknown(bare.token.text);
      throw wrong(left.token.at, "nothing to compare: neither side is a column");
    }
    const equality = sign === "==" || sign === "!=";
    if (equality && (settingText(left, right) !== null || settingText(right, left) !== null)) return;
    if (numeric(left) !== numeric(right)) {
      if (bare) throw unknown(bare.token.text);
      throw wrong(right.token.at, "a number and a text can't be compared");
    }
    if (!numeric(left) && !equality) {
      throw wrong(left.token.at, "texts can only be compared with ==, != and in");
    }
  }

  function side(v, other) {
    if (v.column !== undefined) return {column: v.column};
    if (v.number !== undefined) return {value: other.column?.kind === "number" ? v.number.float : v.number};
    const text = v.token.kind === "text" ? v.token.text.slice(1, -1) : v.token.text;
    return {value: settingText(v, other) ?? text};
  }

  const found = any();
  if (tokens[next].kind !== "end") throw fail("'and', 'or' or the end");
  return found;
}

function tokensOf(expression) {
  if (expression.length > 10000) {
    throw new WhereError(`filter has ${expression.length} characters: more than 10000`);
  }
  const tokens = [];
  let at = 0;
  while (at < expression.length) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(expression);
    if (match === null) {
      const hint = HINTS[expression[at]] ?? "";
      throw new WhereError(
        `filter, character ${at + 1}: can't read '${expression.slice(at, at + 20)}'${hint}`);
    }
    let [kind] = Object.entries(match.groups).find(([, text]) => text !== undefined);
    if (kind === "word" && WORDS.includes(match[0])) kind = "keyword";
    if (kind !== "space") tokens.push({kind, text: match[0], at});
    at += match[0].length;
  }
  tokens.push({kind: "end", text: "", at: expression.length});
  return tokens;
}

/** A decimal number with a prefix, exactly: numerator, denominator, and the nearest float. */
function rational(text) {
  const power = POWERS[text.at(-1)] ?? 0;
  const [mantissa, exponent = "0"] = (power ? text.slice(0, -1) : text).toLowerCase().split("e");
  const [whole, part = ""] = mantissa.split(".");
  const shift = Number(exponent) + power - part.length;
  const n = BigInt(`${whole}${part}` || "0");
  const scale = 10n ** BigInt(Math.abs(shift));
  const float = Number(`${mantissa}e${Number(exponent) + power}`);
  return shift < 0 ? {n, d: scale, float} : {n: n * scale, d: 1n, float};
}

/** The stages of a detector's pyramid and head, which come after a backbone's. */
const PARTS = new Map([["pyramid", 101], ["head", 102]]);

/** An M or G as written in the table: a number, a count over channels, or one for each stage. */
function setting(text) {
  if (text.includes(":")) {
    const stages = new Map();
    for (const part of text.split("+")) {
      const match = /^ *([0-9]{1,2}|pyramid|head) *:([^:+]+)$/.exec(part);
      const value = match === null ? null : setting(match[2].trim());
      const stage = match === null ? null : PARTS.get(match[1]) ?? Number(match[1]);
      if (value === null || value.stages || stages.has(stage)) return null;
      stages.set(stage, value);
    }
    return {stages};
  }
  const over = /^([1-9][0-9]{0,9}) *\/ *C$/.exec(text.trim());
  if (over !== null) return {over: Number(over[1])};
  const fraction = /^([0-9]{1,40})\/([0-9]{1,40})$/.exec(text.trim());
  if (fraction !== null && BigInt(fraction[2]) !== 0n) {
    return {n: BigInt(fraction[1]), d: BigInt(fraction[2])};
  }
  if (!/^\+?([0-9]{1,15}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?$/.test(text.trim())) return null;
  return rational(text.trim().replace(/^\+/, ""));
}

/** "2:1 + 3:2" as "2:1+3:2"; null for what is no M or G. */
function canonical(text) {
  const found = setting(text);
  return found === null ? null : settingName(found);
}

function settingName(value) {
  if (value.stages) {
    const stages = [...value.stages].sort(([a], [b]) => a - b);
    const names = new Map([...PARTS].map(([name, number]) => [number, name]));
    return stages.map(([stage, at]) => `${names.get(stage) ?? stage}:${settingName(at)}`).join("+");
  }
  if (value.over) return `${value.over}/C`;
  const divisor = gcd(value.n, value.d);
  return value.d === divisor ? String(value.n / divisor) : `${value.n / divisor}/${value.d / divisor}`;
}

function gcd(a, b) {
  while (b) [a, b] = [b, a % b];
  return a;
}

const SETTINGS = new Map();

/** A cell of a column as something that compares; null if it is missing. */
function comparable(column, cell) {
  if (cell === null || cell === undefined) return null;
  if (column.kind !== "multiplier") return cell;
  if (!SETTINGS.has(cell)) SETTINGS.set(cell, setting(cell));
  return SETTINGS.get(cell);
}

function comparisonOf(left, sign, right) {
  const of = (side, row) => (side.column ? comparable(side.column, row[side.column.name]) : side.value);
  const raw = (side, row) => (side.column ? row[side.column.name] : side.value);
  return (row) => {
    const a = of(left, row);
    const b = of(right, row);
    if (a === null || b === null) return null;
    if (typeof a === "string" || typeof b === "string") {
      const [x, y] = [String(raw(left, row)), String(raw(right, row))];
      return sign === "==" ? x === y : x !== y;
    }
    return byStage(a, sign, b);
  };
}

function byStage(a, sign, b) {
  if (!a.stages && !b.stages) return test(a, sign, b);
  const stages = new Set([...(a.stages?.keys() ?? []), ...(b.stages?.keys() ?? [])]);
  let held = true;
  for (const stage of stages) {
    const x = a.stages ? a.stages.get(stage) : a;
    const y = b.stages ? b.stages.get(stage) : b;
    const answer = x === undefined || y === undefined ? null : test(x, sign, y);
    if (answer === null) return null;
    held &&= answer;
  }
  return held;
}

function test(a, sign, b) {
  if (a.over && b.over) return signOf(a.over - b.over, sign);
  if (a.over || b.over) return null;
  if (typeof a === "number" && typeof b === "number") return signOf(a < b ? -1 : a > b ? 1 : 0, sign);
  const [x, y] = [a, b].map(exact);
  const order = x.n * y.d - y.n * x.d;
  return signOf(order < 0n ? -1 : order > 0n ? 1 : 0, sign);
}

/** A number as a fraction: whole ones, and floats, which are fractions of a power of two. */
function exact(value) {
  if (typeof value !== "number") return value;
  let d = 1n;
  while (!Number.isInteger(value)) {
    value *= 2;
    d *= 2n;
  }
  return {n: BigInt(value), d};
}

function signOf(order, sign) {
  switch (sign) {
    case "==": return order === 0;
    case "!=": return order !== 0;
    case "<": return order < 0;
    case "<=": return order <= 0;
    case ">": return order > 0;
    default: return order >= 0;
  }
}

/** ": did you mean ...?" for the nearest of `names`; "" if none is near. */
function nearest(name, names) {
  let best = null;
  for (const other of names) {
    const distance = edits(name, other);
    if (best === null || distance < best.distance) best = {other, distance};
  }
  return best !== null && best.distance <= Math.max(2, name.length / 3) ? `: did you mean '${best.other}'?` : "";
}

function edits(a, b) {
  let row = Array.from({length: b.length + 1}, (_, at) => at);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}
