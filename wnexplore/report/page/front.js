// Pareto-optimal points in two columns, by their values and by the intervals of what is unsure.

/**
 * For each of `rows` 2 if no other is better, 1 if it may be so within the intervals, else 0.
 *
 * One point beats another if it is at least as good in both columns and better in one: by their values, or,
 * for certain, by its worse bounds over the other's better ones.
 */
function optimal(rows, xColumn, yColumn) {
  const ends = [xColumn, yColumn].map((column) => rows.map((row) => costs(row, column)));
  const known = rows.map((_, at) => ends[0][at] !== null && ends[1][at] !== null);
  const places = rows.map((_, at) => at).filter((at) => known[at]);
  const of = (name) => places.map((at) => [ends[0][at][name], ends[1][at][name]]);
  const [values, best, worst] = ["value", "best", "worst"].map(of);
  const byValues = beaten(values, values);
  const certainly = beaten(best, worst);
  const found = rows.map(() => 0);
  places.forEach((at, place) => {
    if (!certainly[place]) found[at] = byValues[place] ? 1 : 2;
  });
  return found;
}

/** A row's figure where less is better, with the ends of its interval if it is unsure; null if it has none. */
function costs(row, column) {
  const value = row[column.name];
  if (value === null || value === undefined || typeof value === "string") return null;
  const sign = column.better === "larger" ? -1 : 1;
  const bounds = column.unsure ? column.interval.map((name) => row[name]).filter((end) => end !== null) : [];
  const ends = [value, ...bounds].map((end) => sign * end);
  return {value: sign * value, best: Math.min(...ends), worst: Math.max(...ends)};
}

/** For each of `points` whether one of `others` beats it. */
function beaten(points, others) {
  // The least y at or before each x, and before it.
  const order = [...others].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const steps = [];
  for (const [x, y] of order) {
    if (steps.length === 0 || y < steps.at(-1).y) steps.push({x, y});
  }
  return points.map(([x, y]) => {
    let low = 0;
    let high = steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle].x <= x) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return false;
    const step = steps[low - 1];
    return step.y < y || (step.y === y && step.x < x);
  });
}
