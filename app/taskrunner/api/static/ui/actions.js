// What may be done to tasks: one, some, or all that match a filter.

import { ask, get, post, withQuery } from "./api.js";
import { confirm } from "./dialogs.js";
import { h } from "./dom.js";
import { count, localInput, fromLocalInput, now, plural } from "./format.js";
import { FINISHED, LIVE } from "./parts.js";

export const VERBS = {
  retry: {
    label: "Retry",
    done: "retried",
    icon: "retry",
    from: FINISHED,
    all: ["FAILED", "CANCELLED"],
    about: "They run again from the beginning, due now, with new attempts.",
  },
  cancel: {
    label: "Cancel",
    done: "cancelled",
    icon: "cancel",
    from: LIVE,
    all: LIVE,
    danger: true,
    about: "What waits is cancelled at once; workers are told to stop what runs.",
  },
  delete: {
    label: "Delete",
    done: "deleted",
    icon: "trash",
    from: FINISHED,
    all: FINISHED,
    danger: true,
    about: "They are gone for good, with their results and attempts.",
  },
};

const AT_ONCE = 6;

export const one = (verb, id) => (verb === "delete" ? ask("DELETE", `/api/tasks/${id}`) : post(`/api/tasks/${id}/${verb}`));

// Some tasks, one request each, a few at a time.
export async function some(app, verb, ids) {
  const { label, done, danger, about } = VERBS[verb];
  const sure = await confirm({
    title: `${label} ${plural(ids.length, "task")}?`,
    body: h("p", {}, about),
    action: `${label} ${plural(ids.length, "task")}`,
    kind: danger ? "danger" : "primary",
    does: () => true,
  });
  if (!sure) return false;
  const tell = app.notices.progress(`${label}: ${plural(ids.length, "task")}…`);
  const waiting = [...ids];
  const reasons = [];
  let good = 0;
  await Promise.all(
    Array.from({ length: Math.min(AT_ONCE, ids.length) }, async () => {
      while (waiting.length) {
        try {
          await one(verb, waiting.shift());
          good += 1;
        } catch (error) {
          reasons.push(error.message);
        }
        tell({ part: good + reasons.length, all: ids.length });
      }
    }),
  );
  const bad = reasons.length ? `; ${count(reasons.length)} could not be: ${reasons[0]}` : "";
  tell({ text: `${plural(good, "task")} ${done}${bad}.`, kind: reasons.length ? "bad" : "good", ends: true });
  return true;
}

// All that match: done by the service, in the background. Here is only looked how far it is.
export async function all(app, verb, filter, words) {
  const { label, done, danger, about, from, all: meant } = VERBS[verb];
  const status = filter.status?.length ? filter.status.filter((one) => from.includes(one)) : meant;
  const { status: _, ...rest } = filter;
  const bare = !Object.values(rest).some((value) => (Array.isArray(value) ? value.length : value)) && !filter.status?.length;
  const body = bare ? { all: true } : Object.fromEntries(Object.entries({ ...rest, status }).filter(([, value]) => value?.length));
  const found = await get(withQuery("/api/tasks/count", { ...rest, status })).catch(() => null);
  const many = found ? `${found.complete ? "" : "more than "}${count(found.count)}` : "all";
  if (found?.count === 0) {
    app.say(`Nothing matches that could be ${done}.`);
    return false;
  }
  const operation = await confirm({
    title: `${label} ${many} ${found?.count === 1 ? "task" : "tasks"}?`,
    body: [h("p", {}, words), h("p", {}, about, " It goes on in the background, even when you close this page.")],
    action: `${label} ${many}`,
    kind: danger ? "danger" : "primary",
    does: () => post(`/api/tasks/bulk/${verb}`, body),
  });
  if (!operation) return false;
  await follow(app, operation, found?.complete ? found.count : 0);
  return true;
}

async function follow(app, operation, expected) {
  const { label, done } = VERBS[operation.verb];
  const tell = app.notices.progress(`${label}: under way…`);
  let pause = 150;
  let now = operation;
  while (now.status === "RUNNING") {
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(1000, pause * 1.3);
    try {
      now = await get(`/api/bulk/${operation.id}`);
    } catch (error) {
      if (error.status) {
        tell({ text: `${label}: ${error.message}`, kind: "bad", ends: true });
        return;
      } // unreachable: it goes on without us
    }
    tell({
      text: `${label}: ${count(now.done)} ${done} so far…`,
      part: Math.min(now.matched, expected || now.matched),
      all: Math.max(expected, now.matched),
    });
  }
  const bad = now.failed ? `; ${count(now.failed)} could not be` : "";
  const text = now.status === "FAILED" ? `${label} stopped: ${now.error ?? "it failed"}` : `${plural(now.done, "task")} ${done}${bad}.`;
  tell({ text, kind: now.status === "FAILED" || now.failed ? "bad" : "good", ends: true });
  app.look();
}

export function reschedule(app, task) {
  const near = (seconds) => localInput(new Date(now() + seconds * 1000));
  const field = h("input", {
    type: "datetime-local",
    name: "at",
    step: 1,
    required: true,
    value: localInput(task.run_at),
    "aria-describedby": "zone",
  });
  const quick = [
    ["5 min", 300],
    ["1 hour", 3600],
    ["1 day", 86400],
    ["1 week", 604800],
  ];
  return confirm({
    title: "Reschedule",
    action: "Reschedule",
    body: [
      h("label", { class: "field" }, h("span", {}, "Run at"), field),
      h("p", { class: "note", id: "zone" }, `In your time zone, ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`),
      h(
        "div",
        { class: "quick" },
        quick.map(([text, seconds]) =>
          h(
            "button",
            {
              type: "button",
              class: "button",
              click: () => {
                field.value = near(seconds);
              },
            },
            `in ${text}`,
          ),
        ),
      ),
    ],
    does: (form) => ask("PATCH", `/api/tasks/${task.id}`, { json: { run_at: fromLocalInput(form.get("at")) } }),
  });
}
