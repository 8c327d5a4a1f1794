// One point: how to build it, its layers, raw latencies, learning curves and environment.

/** Fill the section of a point; its charts come when they are made. */
function drawDetails(section, row, details) {
  const own = details.rows[row.id];
  const point = details.points[own.point];
  const close = element("button", {type: "button", id: "close-point"}, ["Close"]);
  const parts = [
    element("h2", {id: "point-title"}, [page.runs.length > 1 ? `${row.run}: ${point.title}` : point.title]),
    element("p", {class: "buttons"}, [close]),
    factsOf(row),
    element("h3", {}, ["Build it"]),
    copied("In Python", point.python),
    copied("On the command line", point.command),
  ];
  const charts = [];
  if (point.stages) parts.push(...layersOf(point, details));
  if (own.latency !== undefined) parts.push(...latencyOf(details.latencies[own.latency], details, charts));
  if (own.training !== undefined) parts.push(...trainingOf(details.trainings[own.training], details, charts));
  section.replaceChildren(...parts);
  for (const {into, spec, description} of charts) chartIn(into, spec, description);
}

function factsOf(row) {
  const columns = [...page.columns.values()].filter((column) => !column.bound && row[column.name] !== null);
  return facts(columns.map((column) => {
    const unit = column.unit && column.kind === "number" ? ` ${column.unit}` : "";
    const count = column.kind === "count" ? ` (${row[column.name].toLocaleString("en")})` : "";
    return [column.label.replace(` (${column.unit})`, ""), `${shownCell(row, column)}${unit}${count}`];
  }));
}

/** Names and texts, cut after so many characters. */
function facts(pairs, most = Infinity) {
  return element("dl", {class: "facts"}, pairs.flatMap(([name, text]) => [element("dt", {}, [name]),
    text.length > most ? element("dd", {title: text}, [`${text.slice(0, most)} …`]) : element("dd", {}, [text])]));
}

/** A line with a button that copies it. */
function copied(name, line) {
  const text = element("code", {}, [line]);
  const button = element("button", {type: "button", "data-copy": line, "aria-label": `Copy: ${name}`}, [`Copy`]);
  return element("div", {}, [element("p", {class: "note"}, [name]), element("pre", {}, [text]), button]);
}

function layersOf(point, details) {
  const stages = point.stages.map((number) => details.stages[number]);
  const sum = (layers, at) => layers.reduce((total, layer) => total + layer[at], 0);
  const head = ["Layer", "Made by", "Parameters", "Multiply-adds"];
  const line = (cells, name = "td") => element("tr", {}, cells.map((cell, at) =>
    element(at === 0 ? "th" : name, {class: at > 1 ? "number" : "", ...(at === 0 ? {scope: "row"} : {})},
      [at > 1 ? cell.toLocaleString("en") : cell])));
  const headings = () => element("thead", {}, [element("tr", {}, head.map((text, at) =>
    element("th", {scope: "col", class: at > 1 ? "number" : ""}, [text])))]);
  const whole = [
    ...stages.map(({stage, layers}) => line([stage, "", sum(layers, 2), sum(layers, 3)])),
    ...point.parts.map(([name, ...counts]) => line([name, "", ...counts])),
    line(["Everything else", "", ...point.rest]),
    line(["Network", "", ...[0, 1].map((at) => point.rest[at] + sum(point.parts, at + 1)
      + stages.reduce((total, {layers}) => total + sum(layers, at + 2), 0))]),
  ];
  return [
    element("h3", {}, ["Parameters and multiply-adds"]),
    scrolled(element("table", {id: "stages"}, [headings(), element("tbody", {}, whole)]), "By stage"),
    ...stages.map(({stage, layers}) => element("details", {}, [
      element("summary", {}, [`${stage}, layer by layer`]),
      scrolled(element("table", {}, [headings(), element("tbody", {}, layers.map((layer) => line(layer)))]), stage),
    ])),
  ];
}

function latencyOf(latency, details, charts) {
  const parts = [element("h3", {}, ["Latency"])];
  if (latency.error) {
    parts.push(element("p", {class: "problem"}, [latency.error]));
  } else {
    parts.push(element("p", {}, [`${latency.rounds} rounds, stopped by ${latency.stopped_by}`]));
    for (const warning of latency.warnings) parts.push(element("p", {}, [`⚠ ${warning}`]));
    if (latency.ms.length) {
      const into = element("div", {class: "view"});
      parts.push(element("figure", {class: "chart"}, [into, rawTimes(latency)]));
      charts.push({into, spec: samplesSpec(latency), description: "Times of single passes of the network and of the plain one"});
    }
  }
  return [...parts, environmentOf(details.environments[latency.environment], "Where it was timed")];
}

function rawTimes(latency) {
  const texts = [["network", latency.ms], ["plain network", latency.plain_ms]].map(
    ([name, times]) => element("p", {}, [`${name}: ${times.join(", ")}`]));
  const some = latency.ms.length < latency.rounds ? `${latency.ms.length} of ${latency.rounds} raw times` : "Raw times";
  return element("figcaption", {}, [element("details", {}, [element("summary", {}, [`${some} (ms)`]), ...texts])]);
}

function trainingOf(training, details, charts) {
  const parts = [element("h3", {}, ["Training"])];
  for (const seed of training.seeds.filter(({error}) => error)) {
    parts.push(element("p", {class: "problem"}, [`seed ${seed.seed}: ${seed.error}`]));
  }
  const good = training.seeds.filter(({error}) => !error);
  const score = page.columns.get(page.content.score);
  const kinds = [
    ["Training loss (nats)", (seed) => (seed.loss ?? []).map((value, at) => [at + 1, value])],
    [score.label, (seed) => (seed[`${score.name}_curve`] ?? []).map((value, at) => [seed.epochs[at], value])],
    ["Test loss (nats)", (seed) => (seed.test_loss_curve ?? []).map((value, at) => [seed.epochs[at], value])],
  ];
  const figures = element("div", {class: "charts"});
  for (const [title, of] of kinds) {
    const values = good.flatMap((seed) => of(seed).filter(([, value]) => value !== null)
      .map(([epoch, value]) => ({seed: String(seed.seed), epoch, value})));
    if (new Set(values.map(({epoch}) => epoch)).size > 1) {
      const into = element("div", {class: "view"});
      figures.append(element("figure", {class: "chart"}, [into]));
      charts.push({into, spec: curvesSpec(values, title), description: `${title} over the epochs, a line for each seed`});
    }
  }
  const text = (value) => (value === null || value === undefined ? "" : String(value));
  parts.push(figures, textTable({
    headings: ["Seed", `${score.heading} (%)`, "test loss (nats)", "seconds"],
    numeric: [true, true, true, true],
    rows: good.map((seed) => [text(seed.seed), text(seed[score.name]?.toFixed(2)), text(seed.test_loss?.toFixed(4)),
      text(seed.seconds?.toFixed(1))]),
  }, "Seeds"));
  const settings = Object.entries(training.settings).map(([name, value]) => [name, text(value)]);
  parts.push(element("details", {}, [element("summary", {}, ["Recipe"]), facts(settings)]));
  return [...parts, environmentOf(details.environments[training.environment], "Where it was trained")];
}

function environmentOf(environment, title) {
  const pairs = Object.entries(environment).map(([name, value]) => [name, String(value)]);
  return element("details", {}, [element("summary", {}, [title]), facts(pairs)]);
}
