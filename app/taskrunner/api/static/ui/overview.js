// How it goes: what was done, how soon it began, what waits, what went wrong.

import { get, withQuery } from "./api.js";
import { columns, legend, lines } from "./chart.js";
import { h } from "./dom.js";
import { cards, lead, OUTCOMES, SPANS, totals, WORDS } from "./figures.js";
import { compact, count, duration, now } from "./format.js";
import { age, badge, card, choice, empty, firstTask, link, meter, table, time } from "./parts.js";

const STEPS = { 900: 60, 3600: 60, 21600: 300, 86400: 900, 604800: 7200 };
const STARTS = [
  { key: "start_p99", name: "p99", kind: "p99" },
  { key: "start_p95", name: "p95", kind: "p95" },
  { key: "start_p50", name: "p50", kind: "p50" },
];
const KEPT = 600; // samples of this visit

export const overview = {
  title: () => "Overview",
  stays: true,
  pace: 2000,
  every: () => 5000,

  begin: () => ({ samples: [], rests: {} }),

  async load(app, state, signal) {
    const span = app.query.get("span") in STEPS ? app.query.get("span") : "3600";
    const asked = { signal };
    const slow = performance.now() - (state.slow ?? -1e9) > 10000 || state.span !== span; // what changes slowly, or costs more
    const [stats, workers, errors] = await Promise.all([
      get(withQuery("/api/stats", { window: span, step: STEPS[span] }), asked),
      slow ? get("/api/workers", asked) : null,
      slow && app.can("payloads") ? get(withQuery("/api/errors", { window: span }), asked) : null,
      counted(state, "queues", asked, 0),
      counted(state, "types", asked, 10000),
    ]);
    if (slow) Object.assign(state, { slow: performance.now(), workers: workers.items, errors: errors?.items ?? null });
    const waits = stats.now;
    Object.assign(state, { span, stats, waits });
    state.samples.push({ at: now(), done: stats.tasks.COMPLETED, ready: waits.ready, late: waits.oldest_ready_age ?? 0 });
    if (state.samples.length > KEPT) state.samples.shift();
  },

  draw(app, state) {
    const { stats, span } = state;
    if (!Object.values(stats.tasks).some((n) => n > 0)) return welcome(app);
    const { points } = stats;
    return [
      h(
        "div",
        { class: "row", key: "row" },
        h("p", { class: "lead" }, lead(state)),
        choice("Time span", SPANS, span, (value) => app.setQuery({ span: value === "3600" ? null : value })),
      ),
      cards(state),
      card(
        "Throughput",
        { class: "wide", key: "throughput", extra: legend(OUTCOMES.filter(({ key }) => points.some((point) => point[key]))) },
        throughput(app, state),
      ),
      h(
        "div",
        { class: "columns even", key: "charts" },
        points.some((point) => point.start_p50 !== null && point.start_p50 !== undefined) &&
          card("Start latency", { key: "latency", extra: legend([...STARTS].reverse()) }, latency(app, state)),
        card("Backlog, since you opened this page", { key: "backlog" }, backlog(app, state)),
      ),
      h("div", { class: "columns even", key: "lists" }, queueCard(state), workerCard(state)),
      state.errors?.length > 0 && errorCard(state),
    ];
  },
};

// What is counted task by task: with very many that is asked for less often, so that it takes a twentieth of the time at most.
async function counted(state, name, asked, least) {
  const began = performance.now();
  if (began < state.rests[name]) return;
  state[name] = (await get(`/api/${name}`, asked)).items;
  state.rests[name] = performance.now() + Math.max(least, 20 * (performance.now() - began));
}

const half = (app) => (app.width > 904 ? (app.width - 20) / 2 - 40 : app.width - 40);

function throughput(app, { stats, span }) {
  const sum = totals(stats.points);
  const said = OUTCOMES.map(({ key, name }) => `${name.toLowerCase()} ${count(sum[key] ?? 0)}`).join(", ");
  return columns({
    points: stats.points,
    series: OUTCOMES,
    width: app.width - 40,
    height: 220,
    show: compact,
    tip: (at, words) => app.tip(at, words),
    label: `Throughput in ${WORDS[span]}: ${said}. Arrow keys read out each column.`,
  });
}

function latency(app, { stats, span }) {
  const last = stats.points.findLast((point) => point.start_p50 !== null && point.start_p50 !== undefined);
  return lines({
    points: stats.points,
    series: STARTS,
    width: half(app),
    height: 180,
    show: duration,
    log: true,
    floor: 0.001,
    tip: (at, words) => app.tip(at, words),
    label: `Start latency in ${WORDS[span]}, at last p50 ${duration(last.start_p50)}, p95 ${duration(last.start_p95)}, p99 ${duration(last.start_p99)}. Arrow keys read out each point.`,
  });
}

function backlog(app, { samples }) {
  const every = Math.max(1, Math.ceil(samples.length / 120));
  const points = samples
    .filter((_, index) => (samples.length - 1 - index) % every === 0)
    .map((one) => ({ ...one, at: new Date(one.at).toISOString() }));
  const last = samples.at(-1);
  return lines({
    points,
    series: [{ key: "ready", name: "Ready", kind: "running" }],
    width: half(app),
    height: 180,
    show: compact,
    floor: 10,
    tip: (at, words) => app.tip(at, words),
    label: `Ready tasks: now ${count(last.ready)}, the oldest waiting for ${age(last.late)}. Arrow keys read out each point.`,
  });
}

function queueCard({ queues }) {
  const busiest = [...queues].sort((a, b) => b.ready + b.running - a.ready - a.running).slice(0, 6);
  const most = Math.max(1, ...queues.map((one) => one.ready));
  return card(
    "Queues",
    { key: "queues", extra: link("#/queues", "All queues") },
    table({
      caption: "Busiest queues",
      items: busiest,
      key: (one) => one.name,
      columns: [
        {
          label: "Queue",
          class: "name",
          cell: (one) => [
            h("a", { href: `#/tasks?queue=${encodeURIComponent(one.name)}`, title: one.name }, one.name),
            one.paused && h("span", { class: "tag warn" }, "paused"),
          ],
        },
        { label: "Ready", class: "number", cell: (one) => compact(one.ready) },
        { label: "", class: "grow wide", cell: (one) => meter(one.ready, most, `${count(one.ready)} ready`) },
        { label: "Oldest", class: "number", cell: (one) => age(one.oldest_ready_age) },
      ],
    }),
  );
}

function workerCard({ workers }) {
  const living = workers.filter((one) => one.status !== "DEAD");
  return card(
    "Workers",
    { key: "workers", extra: link("#/workers", "All workers") },
    living.length
      ? table({
          caption: "Workers",
          items: living.slice(0, 6),
          key: (one) => one.session,
          columns: [
            { label: "Worker", class: "name", cell: (one) => one.name || one.address || one.session.slice(-8) },
            { label: "Status", cell: (one) => badge(one.status) },
            {
              label: "",
              class: "grow wide",
              cell: (one) => meter(one.in_flight, one.slots, `${count(one.in_flight)} of ${count(one.slots)} slots are busy`),
            },
            { label: "Busy", class: "number", cell: (one) => `${count(one.in_flight)}/${count(one.slots)}` },
          ],
        })
      : h("p", { class: "note" }, "No worker is connected. Start one with ", h("code", {}, "taskrunner --roles=worker"), "."),
  );
}

function errorCard({ errors, span }) {
  return card(
    `Errors in ${WORDS[span]}`,
    { key: "errors", extra: link(`#/errors?span=${span}`, "All errors") },
    table({
      caption: "Most frequent errors",
      items: errors.slice(0, 5),
      key: (one) => `${one.task_type} ${one.message}`,
      columns: [
        { label: "Times", class: "number", cell: (one) => h("strong", {}, compact(one.count)) },
        { label: "Type", class: "name", cell: (one) => one.task_type },
        {
          label: "Message",
          class: "cut",
          cell: (one) => h("span", { class: "why", title: one.message }, one.message ?? "hidden: your token may not see errors"),
        },
        { label: "Last", class: "when wide", cell: (one) => time(one.last_at) },
      ],
    }),
  );
}

function welcome(app) {
  return empty(
    "inbox",
    "Ready for the first task",
    h("p", {}, "Nothing has been created yet. Make a task here, or from anywhere that can send a request:"),
    firstTask(),
    h(
      "p",
      {},
      app.can("write") && [h("a", { class: "button primary", href: "#/new" }, "Create a task"), " "],
      h("a", { class: "button", href: "/api/docs" }, "Read the API"),
    ),
  );
}
