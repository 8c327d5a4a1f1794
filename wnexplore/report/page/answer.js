// What stands at the top: the point to take and how sure that is, what was swept, and runs side by side.

function drawAnswers() {
  byId("answers").replaceChildren(byId("answer-title"), ...page.runs.map((run, number) => {
    const {answer} = run;
    const name = page.runs.length > 1 ? [element("h3", {}, [run.name])] : [];
    if (answer.none) return element("div", {class: "answer"}, [...name, element("p", {}, [answer.none])]);
    const rows = page.rows.filter((row) => row.number === number);
    const [take, second, best] = ["take", "runner_up", "best"].map((which) => rows[answer.rows[which]]);
    const note = (line) => element("p", {class: "note"}, [line]);
    return element("div", {class: "answer"}, [
      ...name,
      element("p", {class: "take"}, ["Take ", ...figuresOf(take)]),
      ...(second ? [element("p", {}, [second === best ? "Runner-up, with the largest mean: " : "Runner-up: ", ...figuresOf(second)])] : []),
      ...(best === take || best === second ? [] : [element("p", {}, ["Largest mean: ", ...figuresOf(best)])]),
      element("p", {}, [`Why: ${reasonOf(answer)}`]),
      element("p", {}, [`How sure: ${certaintyOf(answer, take, best)}`]),
      ...doubtsOf(rows, answer).map((line) => element("p", {}, [line])),
      ...answer.among.map(note),
      note(`${page.columns.get(page.content.score).label.replace(" (%)", "")} is the mean over seeds ± its 95 % interval.${take.latency_ratio === null ? "" : " ×plain is a latency over the plain network's."}`),
      copied("In Python", answer.python),
      element("details", {}, [
        element("summary", {}, ["The same in numbers, and what overlaps"]),
        textTable(answer.table, "The point to take, the runner-up and their rivals"),
        ...answer.table.caption.map(note),
        ...(answer.difference ? [note(`Δ: ${answer.difference}`)] : []),
      ]),
    ]);
  }));
}

/** A point's name, which opens it, and its figures. */
function figuresOf(row) {
  const {score: name} = page.content;
  const [score, diff, ratio] = [name, `${name}_diff`, "latency_ratio"].map((column) => page.columns.get(column));
  const figures = [`${score.heading} ${shownCell(row, score)} %`];
  if (row[diff.name] !== null) figures.push(`${shownCell(row, diff)} points over plain on the same seeds`);
  if (row.latency_ratio !== null) {
    figures.push(`×${formatted(ratio, row.latency_ratio)} plain${row.latency_is === "predicted" ? " (predicted)" : ""}`);
  }
  return [element("button", {type: "button", class: "link", "data-point": row.key}, [row.title]), `: ${figures.join(", ")}`];
}

const scoreName = () => page.columns.get(page.content.score).heading;

function reasonOf({alike, of, decided_by: decided}) {
  if (of === 1) return "it is the only point that was trained.";
  if (alike === 0) return `it has the largest mean of ${of} points.`;
  const among = `the intervals of ${alike} of the ${of - 1} other points overlap that of the largest mean; of these ${alike + 1} it`;
  if (decided === "latency_ratio") return `${among} has the smallest latency.`;
  if (decided === "params") return `${among} has the fewest parameters, where latencies can't tell points apart.`;
  return `${among} has the largest mean.`;
}

function certaintyOf({alike, of, unsure}, take, best) {
  if (of === 1) return "There is nothing to compare it with.";
  if (unsure) return `Not known: ${unsure} of ${of} points have no interval (fewer than 2 seeds).`;
  if (alike === 0) return `No other of the ${of} points can be the best in ${scoreName()} within the intervals.`;
  const overlap = `By these intervals ${alike} of the ${of - 1} others can't be told apart from the largest mean in ${scoreName()}.`;
  // What the plain network would have over itself.
  const [low, high] = ["low", "high"].map((end) => `${page.content.score}_diff_${end}`);
  const most = take.method === "plain" ? 0 : take[high];
  const parted = most !== null && best[low] !== null && best[low] > most;
  const paired = parted
    ? ` They leave out that all were trained on the same seeds: over these, ${best.title} ${take.method === "plain" ? "is above plain" : `is further above plain than ${take.title}`}. Take it if accuracy is worth its cost.`
    : "";
  return overlap + paired;
}

/** What makes the latencies that were compared doubtful. */
function doubtsOf(rows, {protocol}) {
  const timing = page.columns.get("latency_ms").within.filter((name) => name in protocol);
  const timed = rows.filter((row) => row.latency_ms !== null && timing.every((name) => row[name] === protocol[name]));
  const counts = new Map();
  for (const kind of timed.flatMap((row) => row.warnings?.split("; ") ?? [])) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  if (counts.size === 0) return [];
  const kinds = [...counts].map(([kind, count]) => `${kind.replaceAll("_", " ")} (${count})`).join(", ");
  return [`${page.content.mark_signs.warning} Doubts about the ${timed.length} latencies compared: ${kinds}. Below the table stands what to do.`];
}

/** Texts of the first screen are cut after so many characters. */
const MOST_CHARACTERS = 160;

function drawRuns() {
  byId("swept").replaceChildren(byId("swept-title"), ...page.runs.flatMap((run) => [
    ...(page.runs.length > 1 ? [element("h3", {}, [run.name])] : []),
    facts(run.facts, MOST_CHARACTERS),
    element("details", {}, [element("summary", {}, [page.runs.length > 1 ? `Versions in ${run.name}` : "Versions"]), facts(run.versions)]),
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

/** When the records of the runs were made. */
function datesOf({name, dates}) {
  if (!dates) return name;
  const [first, last] = dates.map((date) => `${date.slice(0, 10)} ${date.slice(11, 16)}`);
  const end = last === first ? "" : ` to ${last.slice(0, 10) === first.slice(0, 10) ? last.slice(11) : last}`;
  return `${name}: ${first}${end}${dates[1].endsWith("+00:00") ? " UTC" : ""}`;
}
