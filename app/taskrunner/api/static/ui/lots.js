// Queues and types: what waits under each name, and whether it may go on.

import { get, post } from "./api.js";
import { confirm } from "./dialogs.js";
import { h } from "./dom.js";
import { compact, count } from "./format.js";
import { age, button, empty, meter, table } from "./parts.js";

const view = ({ path, title, word, filter, about }) => ({
  title: () => title,
  pace: 2000,
  every: () => 5000,
  begin: () => ({}),

  async load(app, state, signal) {
    const [found, workers] = await Promise.all([get(`/api/${path}`, { signal }), word === "type" ? get("/api/workers", { signal }) : null]);
    state.items = found.items;
    state.served = workers && new Set(workers.items.filter((one) => one.status !== "DEAD").flatMap((one) => one.task_types));
  },

  draw(app, { items, served }) {
    if (!items.length) return empty(path, `No ${path} yet`, h("p", {}, about));
    const most = Math.max(1, ...items.map((one) => one.ready));
    const turn = async (one) => {
      const verb = one.paused ? "resume" : "pause";
      const does = () => post(`/api/${path}/${encodeURIComponent(one.name)}/${verb}`);
      if (one.paused) {
        try {
          await does();
        } catch (error) {
          app.say(error.message, { kind: "bad", seconds: 8 });
          return;
        }
      } else if (
        !(await confirm({
          title: `Pause the ${word} ${one.name}?`,
          action: `Pause ${word}`,
          does,
          body: h(
            "p",
            {},
            "Nothing more of it is started until it is resumed, also after a restart. What runs goes on, and new tasks are still taken in.",
          ),
        }))
      )
        return;
      app.say(`${title.slice(0, -1)} ${one.name} ${verb}d`, { kind: "good" });
      await app.look();
    };
    const href = (one, status) => `#/tasks?${filter}=${encodeURIComponent(one.name)}${status ? `&status=${status}` : ""}`;
    return [
      h("p", { class: "lead" }, about),
      h(
        "div",
        { class: "card flush", key: "table" },
        table({
          caption: title,
          items,
          key: (one) => one.name,
          row: (one) => ({ class: one.paused ? "paused" : null }),
          columns: [
            {
              label: title.slice(0, -1),
              class: "name",
              cell: (one) => [
                h("a", { href: href(one), "data-row": "", class: "strong", title: one.name }, one.name),
                one.paused && h("span", { class: "tag warn" }, "paused"),
                served &&
                  !served.has(one.name) &&
                  one.ready + one.scheduled > 0 &&
                  h("span", { class: "tag bad", title: "No worker that is connected handles this type" }, "no worker"),
              ],
            },
            { label: "Ready", class: "number", cell: (one) => h("a", { href: href(one, "PENDING") }, count(one.ready)) },
            { label: "", class: "grow wide", cell: (one) => meter(one.ready, most, `${count(one.ready)} ready`) },
            { label: "Oldest", class: "number", cell: (one) => age(one.oldest_ready_age) },
            { label: "Scheduled", class: "number", cell: (one) => compact(one.scheduled) },
            { label: "Running", class: "number", cell: (one) => h("a", { href: href(one, "QUEUED,RUNNING") }, count(one.running)) },
            app.can("admin") && {
              label: "",
              class: "act",
              cell: (one) =>
                button(one.paused ? "Resume" : "Pause", () => turn(one), {
                  icon: one.paused ? "play" : "pause",
                  kind: one.paused ? "primary" : "",
                  "aria-label": `${one.paused ? "Resume" : "Pause"} ${one.name}`,
                }),
            },
          ].filter(Boolean),
        }),
      ),
    ];
  },
});

export const queues = view({
  path: "queues",
  title: "Queues",
  word: "queue",
  filter: "queue",
  about: "A queue exists once a task names it. Pause one to let its tasks wait.",
});
export const types = view({
  path: "types",
  title: "Types",
  word: "type",
  filter: "task_type",
  about: "A type names the handler that runs a task. A paused type waits in every queue.",
});
