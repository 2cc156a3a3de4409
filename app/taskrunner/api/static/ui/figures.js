// The overview in figures: how fast it goes, how soon tasks start, what waits, what went wrong.

import { spark } from "./chart.js";
import { h } from "./dom.js";
import { compact, duration, percent, plural, rate } from "./format.js";
import { age } from "./parts.js";

export const SPANS = [
  ["900", "15 min"],
  ["3600", "1 h"],
  ["21600", "6 h"],
  ["86400", "24 h"],
  ["604800", "7 d"],
];

export const WORDS = {
  900: "the last 15 minutes",
  3600: "the last hour",
  21600: "the last 6 hours",
  86400: "the last 24 hours",
  604800: "the last 7 days",
};

export const OUTCOMES = [
  { key: "completed", name: "Completed", kind: "completed" },
  { key: "failed", name: "Failed", kind: "failed" },
  { key: "cancelled", name: "Cancelled", kind: "cancelled" },
  { key: "retried", name: "Retried", kind: "queued" },
];

const OVER = 10; // seconds over which "now" is measured

// Tasks a second, of what was seen in the last seconds.
function pace(samples) {
  const last = samples.at(-1);
  const first = samples.find(({ at }) => last.at - at <= OVER * 1000) ?? last;
  const seconds = (last.at - first.at) / 1000;
  return seconds > 0 ? Math.max(0, (last.done - first.done) / seconds) : null;
}

const paces = (samples) =>
  samples
    .slice(1)
    .map((one, index) => Math.max(0, (1000 * (one.done - samples[index].done)) / Math.max(1, one.at - samples[index].at)))
    .slice(-60);

export const totals = (points) =>
  points.reduce((sum, point) => {
    for (const { key } of OUTCOMES) sum[key] = (sum[key] ?? 0) + (point[key] ?? 0);
    return sum;
  }, {});

const oldest = (lots) => Math.max(0, ...lots.map((one) => one.oldest_ready_age ?? 0));

// How it goes, in two sentences at most: what keeps tasks waiting comes before what failed.
export function lead({ workers, queues, types, stats, span }) {
  const living = workers.filter((one) => one.status === "LIVE");
  if (!living.length) return [h("b", { class: "failed" }, "No worker is connected."), " Tasks wait until one is."];
  const served = new Set(living.flatMap((one) => one.task_types));
  const open = (one) => !one.paused;
  const stuck = types.filter((one) => open(one) && one.ready && !served.has(one.name)).sort((a, b) => b.oldest_ready_age - a.oldest_ready_age);
  const more = stuck.length > 1 ? ` and ${plural(stuck.length - 1, "more type")}` : "";
  // What is paused, or served by nobody, is named as such. How old it gets says nothing of the rest.
  const late = Math.min(oldest(queues.filter(open)), oldest(types.filter((one) => open(one) && !stuck.includes(one))));
  const paused = Object.entries({ queue: queues, type: types })
    .map(([word, lots]) => [word, lots.filter((one) => one.paused).length])
    .filter(([, n]) => n);
  const { failed } = stats.totals;
  const said = [
    stuck.length && ["failed", "#/types", `No worker serves ${stuck[0].name}${more}.`],
    late > 60 && ["cancelled", "#/tasks?status=PENDING", `The oldest ready task waits for ${age(late)}.`],
    paused.length && ["cancelled", `#/${paused[0][0]}s`, `${paused.map(([word, n]) => plural(n, word)).join(" and ")} paused.`],
    failed && ["failed", "#/tasks?status=FAILED", `${plural(failed, "task")} failed in ${WORDS[span]}.`],
  ];
  const first = said.filter(Boolean).slice(0, 2);
  return first.length ? first.map(([kind, href, text]) => [h("a", { class: kind, href }, text), " "]) : "All is well.";
}

export function cards(state) {
  const { stats, waits, samples, span } = state;
  const { points, totals: all } = stats;
  const sum = totals(points);
  const ended = (sum.completed ?? 0) + (sum.failed ?? 0);
  const speed = pace(samples);
  const short = SPANS.find(([value]) => value === span)[1];
  const tile = (label, value, below, more, href) =>
    h(
      "div",
      { class: "tile", key: label },
      h("h2", {}, href ? h("a", { href }, label) : label),
      h("p", { class: "figure" }, value),
      h("p", { class: "note" }, below),
      more,
    );
  return h(
    "div",
    { class: "tiles", key: "tiles" },
    tile(
      "Throughput",
      speed === null ? "–" : [rate(speed), h("small", {}, "/s")],
      `${compact(sum.completed ?? 0)} in ${short}`,
      spark(paces(samples), { kind: "completed" }),
    ),
    all.start_p95 !== null &&
      tile(
        "Start latency, p95",
        duration(all.start_p95),
        `p50 ${duration(all.start_p50)} · p99 ${duration(all.start_p99)} in ${short}`,
        spark(points.map((point) => point.start_p95 ?? 0).slice(-60), { kind: "running" }),
      ),
    tile(
      "Ready",
      compact(waits.ready),
      waits.oldest_ready_age ? `the oldest for ${age(waits.oldest_ready_age)}` : "nothing waits",
      spark(samples.map((one) => one.ready).slice(-60), { kind: "pending" }),
      "#/tasks?status=PENDING",
    ),
    tile("Running", compact(waits.running), `${compact(waits.scheduled)} scheduled for later`, null, "#/tasks?status=QUEUED,RUNNING"),
    tile("Failed", compact(sum.failed ?? 0), `${percent(sum.failed ?? 0, ended)} of all in ${short}`, null, "#/tasks?status=FAILED"),
  );
}
