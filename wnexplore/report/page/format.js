// Numbers and texts as the tables in the terminal have them.

const PREFIXES = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]];

/** `value` with so many decimals; of two equally near ones the even, as Python rounds. */
function fixed(value, digits) {
  const exact = Math.abs(value).toFixed(100);
  const end = exact.indexOf(".") + digits + 1;
  const rest = exact.slice(end);
  if (!/^5?0*$/.test(rest) || rest[0] !== "5") return value.toFixed(digits);
  const below = exact.slice(0, digits === 0 ? exact.indexOf(".") : end);
  const even = Number(below.at(-1)) % 2 === 0;
  const text = even ? below : Math.abs(value).toFixed(digits);
  return (value < 0 ? "-" : "") + text;
}

/** Decimals that show `value` with so many significant digits. */
function decimals(value, significant = 3) {
  if (value === 0 || !Number.isFinite(value)) return 0;
  const exponent = Number(Math.abs(value).toExponential(significant - 1).split("e")[1]);
  return Math.max(0, significant - 1 - exponent);
}

/** A count with a prefix: "1.46 M". */
function prefixed(value) {
  for (const [prefix, scale] of PREFIXES) {
    if (Number(fixed(Math.abs(value) / scale, prefix === "k" ? 5 : 2)) >= 1) {
      return `${fixed(value / scale, 2)} ${prefix}`;
    }
  }
  return String(value);
}

/** One value of a column, without its unit; "" if it is missing. */
function formatted(column, value) {
  if (value === null || value === undefined) return "";
  if (column.kind === "count") return prefixed(value);
  if (column.kind === "number") return fixed(value, column.decimals ?? decimals(value));
  return String(value);
}

/** `value ± the larger distance to its bounds`, with digits according to the interval. */
function withInterval(column, value, low, high, worthless) {
  const text = formatted(column, value);
  if (value === null || low === null || high === null) return text;
  const half = Math.max(high - value, value - low, 0);
  let digits = text.split(".")[1]?.length ?? 0;
  digits = Math.max(digits, Math.min(decimals(half, 1), digits + 2));
  const mark = column.unsure && half > worthless * value ? " (worthless)" : "";
  return `${fixed(value, digits)} ± ${fixed(half, digits)}${mark}`;
}

/** `value [low, high]` with its sign, and digits that tell a bound from 0. */
function difference(column, value, low, high) {
  if (value === null) return "";
  const bounds = low === null || high === null ? [] : [low, high];
  const least = Math.min(...bounds.filter((bound) => bound !== 0).map(Math.abs));
  const usual = column.decimals ?? 0;
  const digits = Math.max(usual, Math.min(Number.isFinite(least) ? decimals(least, 1) : 0, usual + 2));
  let text = fixed(value, digits);
  if (!text.startsWith("-")) text = `+${text}`;
  if (bounds.length) text += ` [${fixed(low, digits)}, ${fixed(high, digits)}]`;
  return text.replaceAll("-", "−");
}

/** A cell of CSV: an apostrophe before what a spreadsheet would take for a formula. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
