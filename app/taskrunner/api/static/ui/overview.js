// How it goes: what was done, how soon it began, what waits, what went wrong.

import { get, maybe, withQuery } from "./api.js";
import { columns, legend, lines, spark } from "./chart.js";
import { h } from "./dom.js";
import { compact, count, duration, now, percent, plural, rate } from "./format.js";
import { age, badge, card, choice, empty, link, meter, table, time } from "./parts.js";

const SPANS = [["900", "15 min"], ["3600", "1 h"], ["21600", "6 h"], ["86400", "24 h"], ["604800", "7 d"]];
const STEPS = { 900: 60, 3600: 60, 21600: 300, 86400: 900, 604800: 7200 };
const WORDS = { 900: "the last 15 minutes", 3600: "the last hour", 21600: "the last 6 hours", 86400: "the last 24 hours", 604800: "the last 7 days" };
const OUTCOMES = [{ key: "completed", name: "Completed", kind: "completed" }, { key: "failed", name: "Failed", kind: "failed" },
  { key: "cancelled", name: "Cancelled", kind: "cancelled" }, { key: "retried", name: "Retried", kind: "queued" }];
const STARTS = [{ key: "start_p99", name: "p99", kind: "p99" }, { key: "start_p95", name: "p95", kind: "p95" }, { key: "start_p50", name: "p50", kind: "p50" }];
const KEPT = 600; // samples of this visit
const OVER = 10; // seconds over which "now" is measured

export const overview = {
  title: () => "Overview",
  stays: true,
  pace: 2000,
  every: () => 5000,

  begin: () => ({ samples: [] }),

  async load(app, state, signal) {
    const span = app.query.get("span") in STEPS ? app.query.get("span") : "3600";
    const asked = { signal };
    const slow = performance.now() - (state.slow ?? -1e9) > 10000 || state.span !== span; // what changes slowly, or costs more
    const [stats, queues, workers, errors] = await Promise.all([
      get(withQuery("/api/stats", { window: span, step: STEPS[span] }), asked).catch((error) => (error.status === 400 ? get("/api/stats", asked) : Promise.reject(error))),
      maybe(get("/api/queues", asked)),
      slow ? maybe(get("/api/workers", asked)) : null,
      slow ? maybe(get(withQuery("/api/errors", { window: span }), asked)) : null]);
    if (slow) Object.assign(state, { slow: performance.now(), workers: workers?.items ?? null, errors: errors?.items ?? null });
    Object.assign(state, { span, stats, queues: queues?.items ?? [] });
    const waits = stats.now ?? summed(state.queues);
    state.waits = waits;
    state.samples.push({ at: now(), done: stats.tasks?.COMPLETED ?? 0, bad: stats.tasks?.FAILED ?? 0, ready: waits.ready, late: waits.oldest_ready_age ?? 0 });
    if (state.samples.length > KEPT) state.samples.shift();
  },

  draw(app, state) {
    const { stats, span } = state;
    const all = Object.values(stats.tasks ?? {}).reduce((sum, n) => sum + n, 0);
    if (!all) return welcome(app);
    const points = stats.points ?? [];
    return [
      h("div", { class: "row", key: "row" }, h("p", { class: "lead" }, lead(state)), choice("Time span", SPANS, span, (value) => app.setQuery({ span: value === "3600" ? null : value }))),
      cards(state),
      points.length > 0 && card("Throughput", { class: "wide", key: "throughput", extra: legend(OUTCOMES.filter(({ key }) => points.some((point) => point[key]))) }, throughput(app, state)),
      h("div", { class: "columns even", key: "charts" },
        points.some((point) => point.start_p50 !== null && point.start_p50 !== undefined) && card("Start latency", { key: "latency", extra: legend([...STARTS].reverse()) }, latency(app, state)),
        card("Backlog, since you opened this page", { key: "backlog" }, backlog(app, state))),
      h("div", { class: "columns even", key: "lists" }, queueCard(state), workerCard(state)),
      state.errors?.length > 0 && errorCard(state)];
  },
};

const summed = (lots) => lots.reduce((sum, one) => ({ ready: sum.ready + one.ready, scheduled: sum.scheduled + one.scheduled, running: sum.running + one.running,
  oldest_ready_age: Math.max(sum.oldest_ready_age ?? 0, one.oldest_ready_age ?? 0) || null }), { ready: 0, scheduled: 0, running: 0, oldest_ready_age: null });

// Tasks a second, of what was seen in the last seconds.
function pace(samples) {
  const last = samples.at(-1);
  const first = samples.find(({ at }) => last.at - at <= OVER * 1000) ?? last;
  const seconds = (last.at - first.at) / 1000;
  return seconds > 0 ? Math.max(0, (last.done - first.done) / seconds) : null;
}

const paces = (samples) => samples.slice(1).map((one, index) => Math.max(0, (1000 * (one.done - samples[index].done)) / Math.max(1, one.at - samples[index].at))).slice(-60);

const totals = (points) => points.reduce((sum, point) => {
  for (const { key } of OUTCOMES) sum[key] = (sum[key] ?? 0) + (point[key] ?? 0);
  return sum;
}, {});

function lead({ workers, queues, waits }) {
  const living = (workers ?? []).filter((one) => one.status === "LIVE");
  const paused = queues.filter((one) => one.paused).length;
  if (workers && !living.length) return [h("b", { class: "failed" }, "No worker is connected."), " Tasks wait until one is."];
  if (paused) return [h("b", { class: "cancelled" }, `${plural(paused, "queue")} paused.`), " The rest goes on."];
  if ((waits.oldest_ready_age ?? 0) > 60) return [h("b", { class: "cancelled" }, `The oldest ready task waits for ${age(waits.oldest_ready_age)}.`)];
  return "All is well.";
}

function cards(state) {
  const { stats, waits, samples, span } = state;
  const points = stats.points ?? [];
  const sum = totals(points);
  const ended = (sum.completed ?? 0) + (sum.failed ?? 0);
  const speed = pace(samples);
  const short = SPANS.find(([value]) => value === span)[1];
  const latest = points.findLast((point) => point.start_p95 !== null && point.start_p95 !== undefined);
  const tile = (label, value, below, more, href) => h("div", { class: "tile", key: label }, h("h2", {}, href ? h("a", { href }, label) : label), h("p", { class: "figure" }, value), h("p", { class: "note" }, below), more);
  return h("div", { class: "tiles", key: "tiles" },
    tile("Throughput", speed === null ? "–" : [rate(speed), h("small", {}, "/s")], points.length ? `${compact(sum.completed ?? 0)} in ${short}` : "completed, now", spark(paces(samples), { kind: "completed" })),
    latest && tile("Start latency, p95", duration(latest.start_p95), `p50 ${duration(latest.start_p50)} · p99 ${duration(latest.start_p99)}`, spark(points.map((point) => point.start_p95 ?? 0).slice(-60), { kind: "running" })),
    tile("Ready", compact(waits.ready), waits.oldest_ready_age ? `the oldest for ${age(waits.oldest_ready_age)}` : "nothing waits", spark(samples.map((one) => one.ready).slice(-60), { kind: "pending" }), "#/tasks?status=PENDING"),
    tile("Running", compact(waits.running), `${compact(waits.scheduled)} scheduled for later`, null, "#/tasks?status=QUEUED,RUNNING"),
    tile("Failed", points.length ? compact(sum.failed ?? 0) : compact(stats.tasks.FAILED ?? 0), points.length ? `${percent(sum.failed ?? 0, ended)} of all in ${short}` : "kept", null, "#/tasks?status=FAILED"));
}

const half = (app) => (app.width > 900 ? (app.width - 20) / 2 - 40 : app.width - 40);

function throughput(app, { stats, span }) {
  const sum = totals(stats.points);
  const said = OUTCOMES.map(({ key, name }) => `${name.toLowerCase()} ${count(sum[key] ?? 0)}`).join(", ");
  return columns({ points: stats.points, series: OUTCOMES, width: app.width - 40, height: 220, show: compact, tip: (at, words) => app.tip(at, words),
    label: `Throughput in ${WORDS[span]}: ${said}. Arrow keys read out each column.` });
}

function latency(app, { stats, span }) {
  const last = stats.points.findLast((point) => point.start_p50 !== null && point.start_p50 !== undefined);
  return lines({ points: stats.points, series: STARTS, width: half(app), height: 180, show: duration, log: true, floor: 0.001, tip: (at, words) => app.tip(at, words),
    label: `Start latency in ${WORDS[span]}, at last p50 ${duration(last.start_p50)}, p95 ${duration(last.start_p95)}, p99 ${duration(last.start_p99)}. Arrow keys read out each point.` });
}

function backlog(app, { samples }) {
  const every = Math.max(1, Math.ceil(samples.length / 120));
  const points = samples.filter((_, index) => (samples.length - 1 - index) % every === 0).map((one) => ({ ...one, at: new Date(one.at).toISOString() }));
  const last = samples.at(-1);
  return lines({ points, series: [{ key: "ready", name: "Ready", kind: "running" }], width: half(app), height: 180, show: compact, floor: 10, tip: (at, words) => app.tip(at, words),
    label: `Ready tasks: now ${count(last.ready)}, the oldest waiting for ${age(last.late)}. Arrow keys read out each point.` });
}

function queueCard({ queues }) {
  const busiest = [...queues].sort((a, b) => b.ready + b.running - a.ready - a.running).slice(0, 6);
  const most = Math.max(1, ...queues.map((one) => one.ready));
  return card("Queues", { key: "queues", extra: link("#/queues", "All queues") }, table({ caption: "Busiest queues", items: busiest, key: (one) => one.name, columns: [
    { label: "Queue", class: "name", cell: (one) => [h("a", { href: `#/tasks?queue=${encodeURIComponent(one.name)}` }, one.name), one.paused && h("span", { class: "tag warn" }, "paused")] },
    { label: "Ready", class: "number", cell: (one) => compact(one.ready) },
    { label: "", class: "grow wide", cell: (one) => meter(one.ready, most, `${count(one.ready)} ready`) },
    { label: "Oldest", class: "number", cell: (one) => age(one.oldest_ready_age) }] }));
}

function workerCard({ workers }) {
  if (!workers) return null;
  const living = workers.filter((one) => one.status !== "DEAD");
  return card("Workers", { key: "workers", extra: link("#/workers", "All workers") }, living.length
    ? table({ caption: "Workers", items: living.slice(0, 6), key: (one) => one.session, columns: [
      { label: "Worker", class: "name", cell: (one) => one.name || one.address || one.session.slice(-8) },
      { label: "Status", cell: (one) => badge(one.status) },
      { label: "", class: "grow wide", cell: (one) => meter(one.in_flight, one.slots, `${count(one.in_flight)} of ${count(one.slots)} slots are busy`) },
      { label: "Busy", class: "number", cell: (one) => `${count(one.in_flight)}/${count(one.slots)}` }] })
    : h("p", { class: "note" }, "No worker is connected. Start one with ", h("code", {}, "taskrunner --roles=worker"), "."));
}

function errorCard({ errors, span }) {
  return card(`Errors in ${WORDS[span]}`, { key: "errors", extra: link(`#/errors?span=${span}`, "All errors") }, table({ caption: "Most frequent errors", items: errors.slice(0, 5), key: (one) => `${one.task_type} ${one.message}`, columns: [
    { label: "Times", class: "number", cell: (one) => h("strong", {}, compact(one.count)) },
    { label: "Type", class: "name", cell: (one) => one.task_type },
    { label: "Message", class: "grow why", cell: (one) => h("span", { title: one.message }, one.message ?? "hidden: your token may not see errors") },
    { label: "Last", class: "when wide", cell: (one) => time(one.last_at) }] }));
}

function welcome(app) {
  return empty("inbox", "Ready for the first task", h("p", {}, "Nothing has been created yet. Make a task here, or from anywhere that can send a request:"),
    h("pre", {}, h("code", {}, `curl ${location.origin}/api/tasks -d '{"task_type": "webhook", "payload": {"url": "https://example.com"}}'`)),
    h("p", {}, app.can("write") && [h("a", { class: "button primary", href: "#/new" }, "Create a task"), " "], h("a", { class: "button", href: "/api/docs" }, "Read the API")));
}
