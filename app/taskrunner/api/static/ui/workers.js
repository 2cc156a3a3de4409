// Who works: sessions of workers, how busy they are, and how to let one go.

import { get, post } from "./api.js";
import { confirm } from "./dialogs.js";
import { h } from "./dom.js";
import { count, plural } from "./format.js";
import { age, badge, button, empty, meter, table, time } from "./parts.js";

export const workers = {
  title: () => "Workers",
  pace: 2000,
  every: () => 3000,

  async load(app, state, signal) {
    state.items = (await get("/api/workers", { signal })).items;
  },

  draw(app, { items }) {
    if (!items.length)
      return empty(
        "workers",
        "No workers",
        h("p", {}, "None is connected, and none was in the last hour. Start one where your code is:"),
        h("pre", {}, h("code", {}, "SCHEDULER_ADDRESS=scheduler:10000 taskrunner --roles=worker --handlers=your.module")),
      );
    const living = items.filter((one) => one.status !== "DEAD");
    const busy = living.reduce((sum, one) => sum + one.in_flight, 0);
    const slots = living.reduce((sum, one) => sum + one.slots, 0);
    const versions = items.some((one) => one.version);
    const lags = items.some((one) => one.lag !== null && one.lag !== undefined);
    return [
      h(
        "p",
        { class: "lead" },
        `${plural(living.length, "worker")} with ${plural(slots, "slot")}, of which ${count(busy)} ${busy === 1 ? "is" : "are"} busy.`,
      ),
      h(
        "div",
        { class: "card flush", key: "table" },
        table({
          caption: "Workers",
          items,
          key: (one) => one.session,
          row: (one) => ({ class: one.status === "DEAD" ? "gone" : null }),
          columns: [
            {
              label: "Worker",
              class: "name",
              cell: (one) => [
                h("strong", {}, one.name || "unnamed"),
                h("span", { class: "why" }, [one.address, `session …${one.session.slice(-8)}`].filter(Boolean).join(" · ")),
              ],
            },
            { label: "Status", cell: (one) => badge(one.status) },
            versions && { label: "Version", class: "roomy", cell: (one) => one.version || "–" },
            {
              label: "Serves",
              class: "wide serves",
              cell: (one) => [
                h("span", { title: one.task_types.join(", ") }, plural(one.task_types.length, "type")),
                h("span", { class: "why", title: one.queues.join(", ") }, one.queues.includes("*") ? "every queue" : one.queues.join(", ")),
              ],
            },
            { label: "Busy", class: "number", cell: (one) => `${count(one.in_flight)} of ${count(one.slots)}` },
            {
              label: "",
              class: "grow wide",
              cell: (one) => meter(one.in_flight, one.slots, `${count(one.in_flight)} of ${count(one.slots)} slots are busy`),
            },
            {
              label: "Beat",
              class: "number",
              cell: (one) => (one.status === "DEAD" ? "–" : `${age(Math.round(one.last_beat_age * 10) / 10)} ago`),
            },
            lags && { label: "Lag", class: "number wide", cell: (one) => age(one.lag) },
            { label: "Started", class: "when roomy", cell: (one) => time(one.started_at) },
            app.can("admin") && {
              label: "",
              class: "act",
              cell: (one) =>
                one.status === "LIVE" &&
                button("Drain", () => drain(app, one), { icon: "drain", "aria-label": `Drain ${one.name || one.session}` }),
            },
          ].filter(Boolean),
        }),
      ),
    ];
  },
};

async function drain(app, one) {
  const told = await confirm({
    title: `Drain ${one.name || "this worker"}?`,
    action: "Drain worker",
    kind: "danger",
    does: () => post(`/api/workers/${one.session}/drain`),
    body: h(
      "p",
      {},
      `It takes nothing more, finishes the ${plural(one.in_flight, "task")} that it has, and ends, with the whole process that it is part of. Something has to start it again.`,
    ),
  });
  if (!told) return;
  app.say(`${one.name || "The worker"} is told with its next beat`, { kind: "good" });
  await app.look();
}
