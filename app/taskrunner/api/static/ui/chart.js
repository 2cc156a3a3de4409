// Charts over time, as SVG: stacked columns and lines. Each has a sentence that says what it shows, for those who do not see it, and can be
// walked through with the arrow keys.

import { h, svg } from "./dom.js";
import { absolute, axisTime } from "./format.js";

const TOP = 10;
const BOTTOM = 22;
const LEFT = 66; // "2 h 46 min" fits
const RIGHT = 8;

// The top of an axis of counts: round, and so is its half, which is written, too.
function niceTop(count) {
  const size = 10 ** Math.floor(Math.log10(Math.max(1, count)));
  return [1, 2, 4, 6, 8, 10].map((one) => one * size).find((one) => one >= count && one % 2 === 0);
}

function frame({ points, width, height, label, series, show, tip }) {
  const step = (width - LEFT - RIGHT) / Math.max(1, points.length);
  const span = points.length > 1 ? Date.parse(points.at(-1).at) - Date.parse(points[0].at) : 0;
  const wanted = Math.max(2, Math.min(8, Math.floor(width / 110)));
  const every = Math.max(1, Math.ceil(points.length / wanted));
  const middle = (index) => LEFT + step * (index + 0.5);
  const names = points.flatMap(({ at }, index) =>
    index % every === Math.floor(every / 2)
      ? [svg("text", { x: middle(index), y: height - 6, class: "axis", "text-anchor": "middle" }, axisTime(at, span))]
      : [],
  );
  const words = (index) => [absolute(points[index].at), ...series.map(({ key, name }) => `${name} ${show(points[index][key])}`)];
  const columns = points.map((_, index) =>
    svg("rect", {
      class: "column",
      x: LEFT + step * index,
      y: TOP,
      width: step,
      height: height - TOP - BOTTOM,
      pointerenter: (event) => tip(event.currentTarget, words(index)),
      pointerleave: () => tip(null),
    }),
  );
  let at = points.length;
  const walk = (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -points.length, End: points.length }[event.key];
    if (!moves || !points.length) return;
    event.preventDefault();
    at = Math.max(0, Math.min(points.length - 1, at + moves));
    tip(event.currentTarget.querySelectorAll(".column")[at], words(at));
  };
  return {
    step,
    middle,
    whole: (...drawn) =>
      svg(
        "svg",
        {
          class: "chart",
          viewBox: `0 0 ${width} ${height}`,
          width,
          height,
          role: "img",
          "aria-label": label,
          tabindex: 0,
          keydown: walk,
          blur: () => tip(null),
        },
        drawn,
        names,
        svg("line", { x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM, class: "base" }),
        columns,
      ),
  };
}

const rule = (y, width, text) => [
  svg("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y, class: "rule" }),
  svg("text", { x: LEFT - 8, y: y + 3.5, class: "axis", "text-anchor": "end" }, text),
];

export function columns({ points, series, show, ...rest }) {
  const { width, height } = rest;
  const top = niceTop(Math.max(0, ...points.map((point) => series.reduce((sum, { key }) => sum + (point[key] ?? 0), 0))));
  const { step, whole } = frame({ points, series, show, ...rest });
  const y = (value) => height - BOTTOM - (value / top) * (height - TOP - BOTTOM);
  const gap = step > 4 ? Math.min(3, step * 0.2) : 0;
  const bars = points.flatMap((point, index) => {
    let sum = 0;
    return series.flatMap(({ key, kind }) => {
      const value = point[key] ?? 0;
      if (!value) return [];
      const from = y(sum);
      sum += value;
      return [
        svg("rect", {
          class: `bar ${kind}`,
          x: LEFT + step * index + gap / 2,
          width: Math.max(0.5, step - gap),
          y: y(sum),
          height: Math.max(0.75, from - y(sum)),
        }),
      ];
    });
  });
  return whole(
    [0.5, 1].map((part) => rule(y(top * part), width, show(top * part))),
    bars,
  );
}

// On a logarithmic scale where they differ by much: a median of 2 ms is to be seen beside a p99 of 2 s.
export function lines({ points, series, show, log = false, floor = 0, ...rest }) {
  const { width, height } = rest;
  const values = points.flatMap((point) => series.map(({ key }) => point[key]).filter((value) => value !== null && value !== undefined));
  const { middle, whole } = frame({ points, series, show, ...rest });
  const most = Math.max(floor, ...values);
  const least = log ? 10 ** Math.floor(Math.log10(Math.max(floor || 1e-9, Math.min(most, ...values.filter((value) => value > 0))))) : 0;
  const top = log ? Math.max(10 ** Math.ceil(Math.log10(most || least)), least * 10) : niceTop(most);
  const share = (value) => (log ? Math.log10(Math.max(value, least) / least) / Math.log10(top / least) : value / top);
  const y = (value) => height - BOTTOM - share(value) * (height - TOP - BOTTOM);
  const marks = log ? Array.from({ length: Math.round(Math.log10(top / least)) }, (_, index) => least * 10 ** (index + 1)) : [top / 2, top];
  const drawn = series.flatMap(({ key, kind }) => {
    const runs = [[]];
    points.forEach((point, index) =>
      point[key] === null || point[key] === undefined ? runs.push([]) : runs.at(-1).push([middle(index), y(point[key])]),
    );
    return runs
      .filter((run) => run.length)
      .map((run) =>
        run.length === 1
          ? svg("circle", { class: `dot ${kind}`, cx: run[0][0], cy: run[0][1], r: 2.5 })
          : svg("path", { class: `line ${kind}`, d: `M${run.map(([x, v]) => `${x.toFixed(1)} ${v.toFixed(1)}`).join("L")}` }),
      );
  });
  return whole(
    marks.map((mark) => rule(y(mark), width, show(mark))),
    drawn,
  );
}

export function spark(values, { width = 120, height = 32, kind = "running" } = {}) {
  if (values.length < 2) return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const top = Math.max(...values) || 1;
  const at = (value, index) =>
    `${((index * width) / (values.length - 1)).toFixed(1)} ${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`;
  const way = values.map(at).join("L");
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: `area ${kind}`, d: `M0 ${height}L${way}L${width} ${height}z` }),
    svg("path", { class: `line ${kind}`, d: `M${way}` }),
  );
}

export const legend = (series) =>
  h(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    series.map(({ name, kind }) => h("li", {}, h("i", { class: `swatch ${kind}` }), name)),
  );
