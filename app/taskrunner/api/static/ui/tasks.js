// The list of tasks: filters in the address, selection, and what is done to what is selected.

import { get, withQuery } from "./api.js";
import { all, some, VERBS } from "./actions.js";
import { h } from "./dom.js";
import { asQuery, chips, described, FILTERS, filterOf, search, statusTabs } from "./filters.js";
import { count, duration, since, took } from "./format.js";
import { icon } from "./icons.js";
import { badge, button, empty, firstTask, link, table, tags, time } from "./parts.js";

const PAGE = 50;

export const tasks = {
  title: () => "Tasks",
  stays: true,
  pace: 1000,
  every: () => 10000,

  begin: () => ({ chosen: new Set(), everything: false, items: [], names: { types: [], queues: [] }, counts: null }),

  async load(app, state, signal) {
    const words = app.query.toString();
    if (state.words !== words) Object.assign(state, { chosen: new Set(), everything: false });
    const filter = filterOf(app.query);
    const { task_type, queue, tag, error, created_after, created_before } = filter;
    const page = get(withQuery("/api/tasks", { ...asQuery(filter), limit: PAGE, cursor: app.query.get("cursor") }), { signal });
    const [found, stats, types, queues] = await Promise.all([
      page,
      // Statuses are counted by queue and type only: under other filters they have no numbers, rather than those of other tasks.
      tag.length || error || created_after || created_before ? null : get(withQuery("/api/stats", { task_type, queue }), { signal }),
      state.asked ? null : get("/api/types", { signal }),
      state.asked ? null : get("/api/queues", { signal }),
    ]);
    state.asked = true;
    if (types) state.names.types = types.items.map((one) => one.name);
    if (queues) state.names.queues = queues.items.map((one) => one.name);
    Object.assign(state, { words, filter, items: found.items, next: found.next_cursor, counts: stats?.tasks });
    const shown = new Set(found.items.map((one) => one.id));
    for (const id of state.chosen) if (!shown.has(id)) state.chosen.delete(id);
  },

  draw(app, state) {
    const { items, filter } = state;
    const filtered = FILTERS.some((name) => app.query.get(name)) || app.query.get("span");
    return [
      search(app, state),
      statusTabs(app, state),
      chips(app, filter),
      items.length ? [list(app, state), pager(app, state)] : nothing(app, filtered),
      bar(app, state),
      h(
        "datalist",
        { id: "types" },
        state.names.types.map((name) => h("option", { value: name })),
      ),
      h(
        "datalist",
        { id: "queues" },
        state.names.queues.map((name) => h("option", { value: name })),
      ),
    ];
  },
};

function list(app, state) {
  const { chosen, items } = state;
  const may = app.can("write");
  const turn = (id) => (event) => {
    if (event.target.checked) chosen.add(id);
    else chosen.delete(id);
    state.everything = false;
    app.redraw();
  };
  const turnAll = (event) => {
    for (const { id } of items)
      if (event.target.checked) chosen.add(id);
      else chosen.delete(id);
    state.everything = false;
    app.redraw();
  };
  const whole = chosen.size === items.length;
  return table({
    caption: "Tasks, newest first",
    items,
    key: (one) => one.id,
    row: (one) => ({ class: chosen.has(one.id) || state.everything ? "chosen" : null }),
    columns: [
      may && {
        class: "tick",
        head: () =>
          h("input", {
            type: "checkbox",
            "aria-label": "Select all on this page",
            checked: whole,
            indeterminate: chosen.size > 0 && !whole,
            change: turnAll,
          }),
        cell: (one) =>
          h("input", {
            type: "checkbox",
            "aria-label": `Select ${one.task_type} ${one.id}`,
            checked: chosen.has(one.id) || state.everything,
            change: turn(one.id),
          }),
      },
      { label: "Status", class: "status", cell: (one) => badge(one.status) },
      {
        label: "Type",
        class: "type",
        cell: (one) => [
          h("a", { href: `#/tasks/${one.id}`, "data-row": "", class: "strong", title: one.task_type }, one.task_type),
          tags(one.tags, (name) => `#/tasks?tag=${encodeURIComponent(name)}`),
          one.status === "FAILED" && one.error && h("span", { class: "why", title: one.error }, one.error),
        ],
      },
      { label: "Queue", class: "queue wide", cell: (one) => h("span", { title: one.queue }, one.queue) },
      {
        label: "Attempts",
        class: "number wide",
        cell: (one) => (one.max_attempts ? `${one.attempt} of ${one.max_attempts}` : one.attempt),
      },
      { label: "When", class: "when", cell: whenOf },
      {
        label: "Took",
        class: "number wide",
        cell: (one) => (one.finished_at ? duration(took(one)) : ""),
      },
      { label: "Created", class: "when wide", cell: (one) => time(one.created_at) },
      { label: "Id", class: "id roomy", cell: (one) => h("code", { title: one.id }, `…${one.id.slice(-8)}`) },
    ].filter(Boolean),
  });
}

function whenOf(one) {
  if (one.finished_at) return time(one.finished_at);
  if (one.status === "PENDING") return ["due ", time(one.run_at)];
  if (one.progress !== null) return h("progress", { max: 1, value: one.progress, "aria-label": `${Math.round(one.progress * 100)} %` });
  return since(one) ? ["since ", time(since(one))] : "–";
}

function pager(app, state) {
  const later = app.query.get("cursor");
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages", key: "pager" },
    later ? button("Newest", () => app.setQuery({ cursor: null }), { icon: "back" }) : h("span", {}),
    state.next &&
      h(
        "button",
        {
          type: "button",
          class: "button",
          click: () => {
            app.setQuery({ cursor: state.next });
            scrollTo(0, 0);
          },
        },
        h("span", {}, "Older"),
        icon("next"),
      ),
  );
}

// What is selected, and what can be done to it.
function bar(app, state) {
  const { chosen, items, everything, filter } = state;
  if (!chosen.size && !everything) return null;
  const whole = items.length > 0 && chosen.size === items.length;
  const kinds = new Set(items.filter((one) => chosen.has(one.id)).map((one) => one.status));
  const act = async (verb) => {
    const done = everything
      ? await all(app, verb, filter, described(filter))
      : await some(
          app,
          verb,
          items.filter((one) => chosen.has(one.id) && VERBS[verb].from.includes(one.status)).map((one) => one.id),
        );
    if (done) {
      state.chosen = new Set();
      state.everything = false;
      await app.look();
    }
  };
  const able = (verb) =>
    everything
      ? !filter.status.length || filter.status.some((one) => VERBS[verb].from.includes(one))
      : VERBS[verb].from.some((one) => kinds.has(one));
  return h(
    "div",
    { class: "bar", role: "region", "aria-label": "Selected tasks", key: "bar" },
    h("strong", {}, everything ? "All that match" : `${count(chosen.size)} selected`),
    whole &&
      !everything &&
      button(
        "Select all that match",
        () => {
          state.everything = true;
          app.redraw();
        },
        { kind: "plain" },
      ),
    h("span", { class: "grow" }),
    Object.entries(VERBS)
      .filter(([verb]) => able(verb))
      .map(([verb, { label, icon: drawn, danger }]) =>
        button(label, () => act(verb), { icon: drawn, kind: danger ? "danger" : "", key: verb }),
      ),
    h(
      "button",
      {
        type: "button",
        class: "button plain square",
        "aria-label": "Select nothing",
        key: "none",
        click: () => {
          state.chosen = new Set();
          state.everything = false;
          app.redraw();
        },
      },
      icon("close"),
    ),
  );
}

function nothing(app, filtered) {
  if (filtered)
    return empty(
      "inbox",
      "No task matches",
      h("p", {}, "Nothing has all of these. "),
      button("Show all tasks", () => {
        location.hash = "#/tasks";
      }),
    );
  return empty(
    "inbox",
    "No tasks yet",
    h("p", {}, "Create the first one here, or from anywhere that can send a request:"),
    firstTask(),
    app.can("write") && link("#/new", "Create a task"),
  );
}
