// The plots: descriptions for Vega-Lite, and the views made of them.

/** The colours of text and lines, for the page's scheme. */
function chartConfig() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const [ink, line] = [of("--ink"), of("--line")];
  return {
    background: null,
    font: "system-ui, sans-serif",
    view: {stroke: line},
    axis: {labelColor: ink, titleColor: ink, gridColor: line, domainColor: ink, tickColor: ink, labelFontSize: 12,
      titleFontSize: 12, titleFontWeight: 500, gridOpacity: 0.5},
    legend: {labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500,
      symbolStrokeColor: ink, labelLimit: 240, columns: 2},
    text: {color: ink},
    rule: {color: ink},
    line: {color: ink},
  };
}

const EMBED = {mode: "vega-lite", ast: true, actions: false, defaultStyle: false, logLevel: 1};

/** A plot with more points than this is drawn as pixels, and has error bars at its front alone. */
const MANY = 2000;

function axisOf(column) {
  const format = column.kind === "count" ? {format: "~s"} : {};
  return {title: column.label, ...format};
}

/** Colours that would be lost on a dark page. */
const ON_DARK = {"#000000": "#FFFFFF", "#0060A8": "#4C9BE0", "#8A3B12": "#C8703F"};

/** Outlines that would be lost on a light page. */
const HOLLOW_ON_LIGHT = {"#F2D74E": "#8F7A00"};

/** The colours and shapes of a column's values: {domain, colours, shapes}; null for a scale of numbers. */
function looksOf(column, rows, looks) {
  const values = distinct(rows, column);
  if (column.kind !== "text" && values.length > looks.others.length) return null;
  const named = new Map(column.name === "method" ? Object.entries(looks.methods) : []);
  const taken = new Set(values.filter((value) => named.has(value)).map((value) => named.get(value).colour));
  const free = looks.others.filter((look) => !taken.has(look.colour));
  let next = 0;
  const found = values.map((value) => named.get(value) ?? free[next++ % free.length] ?? looks.others[0]);
  const label = (value) => named.get(value)?.label ?? formatted(column, value);
  return {
    domain: values.map(label),
    colours: found.map((look) => (dark() ? ON_DARK[look.colour] : null) ?? look.colour),
    shapes: found.map((look) => look.shape),
    label,
  };
}

const dark = () => matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches;

/** What a scatter plot draws of one row; null if it lacks a figure. */
function datumOf(row, look, level, {x, y, color, size}, inside, bars) {
  const bound = (column, end) => (bars && column.interval ? row[column.interval[end]] : null);
  return {
    // As a text: Vega shows no tooltip for 0.
    id: String(row.id),
    x: row[x.name], y: row[y.name],
    x1: bound(x, 0), x2: bound(x, 1), y1: bound(y, 0), y2: bound(y, 1),
    c: look === null ? row[color.name] : row[color.name] === null ? null : look.label(row[color.name]),
    s: size ? row[size.name] : null,
    level,
    inside,
    predicted: row.latency_is === "predicted" && [x, y].some((column) => column.within.includes("batch_size")),
  };
}

/** The description of a scatter plot of columns `x` and `y`, with a rectangle where `brush` says its ends. */
function scatterSpec({x, y, color, size}, look, data, brush) {
  const at = {x: {field: "x", type: "quantitative", scale: {zero: false, padding: 12}, axis: axisOf(x)},
    y: {field: "y", type: "quantitative", scale: {zero: false, padding: 12}, axis: axisOf(y)}};
  const faded = {condition: {test: "datum.inside", value: 1}, value: 0.12};
  const legend = {title: color.heading, orient: "bottom"};
  const coloured = look === null
    ? {color: {field: "c", type: "quantitative", scale: {scheme: "viridis"}, legend}}
    : {
      color: {field: "c", type: "nominal", scale: {domain: look.domain, range: look.colours}, legend},
      shape: {field: "c", type: "nominal", scale: {domain: look.domain, range: look.shapes}, legend},
    };
  const sized = size
    ? {size: {field: "s", type: "quantitative", scale: {range: [30, 400]}, legend: {title: size.label, orient: "bottom"}}}
    : {};
  const tooltip = {tooltip: {field: "id", type: "nominal"}};
  const config = chartConfig();
  const mark = {type: "point", size: data.length <= 300 ? 70 : 25, cursor: "pointer"};
  const measured = {
    params: [{name: "brush", select: {type: "interval", encodings: ["x", "y"]}, ...(brush ? {value: brush} : {})}],
    transform: [{filter: "!datum.predicted"}],
    // A thin outline: pale colours are seen on any page.
    mark: {...mark, filled: true, stroke: config.text.color, strokeWidth: 0.6},
    encoding: {...at, ...coloured, ...sized, ...tooltip, opacity: faded},
  };
  const outlines = look === null || dark() ? {} : {
    stroke: {field: "c", type: "nominal", legend: null,
      scale: {domain: look.domain, range: look.colours.map((colour) => HOLLOW_ON_LIGHT[colour] ?? colour)}},
  };
  const predicted = {
    transform: [{filter: "datum.predicted"}],
    mark: {...mark, filled: false, strokeWidth: 1.5},
    encoding: {...at, ...coloured, ...outlines, ...sized, ...tooltip, opacity: faded},
  };
  const bars = (name, other) => ({
    transform: [{filter: `isValid(datum.${name}1) && isValid(datum.${name}2)`}],
    mark: {type: "rule", strokeWidth: 1},
    encoding: {
      [name]: {...at[name], field: `${name}1`}, [`${name}2`]: {field: `${name}2`}, [other]: at[other],
      opacity: {condition: {test: "datum.inside", value: 0.45}, value: 0.05},
    },
  });
  const front = {
    data: {name: "front"},
    mark: {type: "line", interpolate: x.better === "larger" ? "step-before" : "step-after", strokeWidth: 1.2},
    encoding: {...at, detail: {field: "group", type: "nominal"}},
  };
  const rings = {
    transform: [{filter: "datum.level == 1"}],
    mark: {type: "point", filled: false, size: 220, strokeWidth: 1, strokeDash: [3, 2]},
    encoding: {...at, opacity: faded},
  };
  return {
    width: "container",
    height: 360,
    autosize: {type: "fit", contains: "padding"},
    data: {name: "points"},
    layer: [
      ...(x.interval ? [bars("x", "y")] : []),
      ...(y.interval ? [bars("y", "x")] : []),
      ...(x.better && y.better ? [front, rings] : []),
      measured,
      ...(data.some((datum) => datum.predicted) ? [predicted] : []),
    ],
    config,
  };
}

/** The corners of the front among `data`, best first, for its line. */
function cornersOf(data, group) {
  const corners = data.filter((datum) => datum.level === 2).sort((a, b) => a.x - b.x || a.y - b.y);
  return corners.map(({x, y}) => ({x, y, group}));
}

/** The heat map of a column over M and G. */
function heatSpec(column, Ms, Gs) {
  const scheme = {scheme: "viridis", reverse: column.better === "smaller"};
  const at = {
    x: {field: "M", type: "nominal", sort: Ms, axis: {title: "M", labelAngle: 0}},
    y: {field: "G", type: "nominal", sort: Gs, axis: {title: "G"}},
  };
  return {
    width: "container",
    height: {step: 34},
    autosize: {type: "fit-x", contains: "padding"},
    data: {name: "cells"},
    layer: [
      {
        mark: "rect",
        encoding: {...at,
          color: {field: "mean", type: "quantitative", scale: scheme, legend: {title: column.label, orient: "bottom"}},
          tooltip: {field: "tooltip", type: "nominal"}},
      },
      {
        mark: {type: "text", fontSize: 12},
        encoding: {...at, text: {field: "text", type: "nominal"},
          color: {condition: {test: "datum.bright", value: "#000000"}, value: "#ffffff"}},
      },
    ],
    config: chartConfig(),
  };
}

/** Times of a latency, pass by pass. */
function samplesSpec(latency) {
  const values = [["network", "ms"], ["plain network", "plain_ms"]].flatMap(([which, name]) =>
    latency[name].map((ms, at) => ({which, round: latency[`${name}_rounds`]?.[at] ?? at + 1, ms})));
  const legend = {title: null, orient: "bottom"};
  return lowSpec(values, {type: "point", filled: true, size: 25}, {
    x: {field: "round", type: "quantitative", axis: {title: "Round"}},
    y: {field: "ms", type: "quantitative", scale: {zero: false}, axis: {title: "Time of a pass (ms)"}},
    color: {field: "which", type: "nominal", scale: {range: ["#0060A8", "#E8862E"]}, legend},
    shape: {field: "which", type: "nominal", legend},
  });
}

/** One figure of a training over its epochs, a line for each seed. */
function curvesSpec(values, title) {
  return lowSpec(values, {type: "line", point: true, strokeWidth: 1.2}, {
    x: {field: "epoch", type: "quantitative", axis: {title: "Epoch", tickMinStep: 1, format: "d"}},
    y: {field: "value", type: "quantitative", scale: {zero: false}, axis: {title}},
    color: {field: "seed", type: "nominal", legend: {title: "Seed", orient: "bottom", columns: 8}},
  });
}

const lowSpec = (values, mark, encoding) =>
  ({width: "container", height: 200, data: {values}, mark, encoding, config: chartConfig()});

/** A view of `spec` in an element; `data` by name, `said` makes the text of a tooltip from its value. Without a
 * description it would be silent to a screen reader. */
async function chartIn(element, spec, description, data = {}, {many = false, said = String} = {}) {
  const tooltip = {disableDefaultStyle: true, formatTooltip: (value, sanitize) => sanitize(said(value))};
  const embedded = {...EMBED, tooltip, renderer: many ? "canvas" : "svg"};
  const {view} = await vegaEmbed(element, {...spec, datasets: data}, embedded);
  // A screen reader gets the description and the table, not each mark.
  element.querySelector("svg, canvas")?.setAttribute("aria-hidden", "true");
  describe(element, description);
  return view;
}

/** Say what a plot shows. After it is drawn: Vega sets a role and a label of its own. */
function describe(element, description) {
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", description);
}
