// One task: what it is, what became of it, and what can be done to it.

import { get } from "./api.js";
import { one, reschedule, VERBS } from "./actions.js";
import { confirm } from "./dialogs.js";
import { h } from "./dom.js";
import { curl, duration, percent, since, took } from "./format.js";
import { badge, block, button, card, copy, facts, FINISHED, hidden, json, LIVE, tags, time, toClipboard } from "./parts.js";

const PRIORITIES = { 1: "1, first", 2: "2", 3: "3", 4: "4, last" };

export const task = {
  title: (app) => app.state?.task?.task_type ?? "Task",
  pace: 500,
  every: ({ task: shown }) => (shown && FINISHED.includes(shown.status) ? 15000 : 1000),

  async load(app, state, signal) {
    const before = state.task?.status;
    state.task = await get(`/api/tasks/${encodeURIComponent(app.id)}`, { signal });
    document.title = `${state.task.task_type} · taskrunner`;
    if (before !== state.task.status) app.chrome();
  },

  draw(app, { task: shown }) {
    const redacted = Boolean(shown.redacted);
    return [
      h(
        "div",
        { class: "head", key: "head" },
        badge(shown.status),
        h("code", { class: "idline" }, shown.id),
        copy(shown.id, app, "Id"),
        h("span", { class: "grow" }),
        actions(app, shown),
      ),
      progress(shown),
      h(
        "div",
        { class: "columns", key: "columns" },
        h(
          "div",
          {},
          (shown.error || failedAttempts(shown).length > 0) &&
            FINISHED.includes(shown.status) &&
            shown.status !== "COMPLETED" &&
            shown.error !== null &&
            card("Error", { class: "bad", key: "error" }, block(shown.error, app, "Error", "error"), trace(shown, app)),
          card("Payload", { key: "payload" }, redacted ? hidden("The payload is") : json(shown.payload, app, "Payload")),
          shown.status === "COMPLETED" &&
            card("Result", { key: "result" }, redacted ? hidden("The result is") : json(shown.result, app, "Result")),
          Object.keys(shown.metadata ?? {}).length > 0 && card("Metadata", { key: "metadata" }, json(shown.metadata, app, "Metadata")),
        ),
        h("div", {}, card("Timeline", { key: "timeline" }, timeline(shown, app)), card("Facts", { key: "facts" }, described(shown))),
      ),
    ];
  },
};

const failedAttempts = (shown) => shown.attempts ?? [];

function actions(app, shown) {
  const act = async (does, words) => {
    try {
      await does();
      app.say(words, { kind: "good" });
    } catch (error) {
      app.say(error.message, { kind: "bad", seconds: 8 });
    }
    await app.look();
  };
  const sure = (verb, text) => async () => {
    const done = await confirm({
      title: `${VERBS[verb].label} this task?`,
      body: h("p", {}, text),
      action: `${VERBS[verb].label} task`,
      kind: "danger",
      does: () => one(verb, shown.id),
    });
    if (!done) return;
    app.say(verb === "delete" ? "Task deleted" : "Cancel requested", { kind: "good" });
    if (verb === "delete") location.hash = "#/tasks";
    else await app.look();
  };
  const may = app.can("write");
  const waits = shown.status === "PENDING";
  const move = async () => {
    if (await reschedule(app, shown)) {
      app.say("Task rescheduled", { kind: "good" });
      await app.look();
    }
  };
  return h(
    "div",
    { class: "buttons" },
    may && waits && button("Run now", () => act(() => one("run", shown.id), "Task is due now"), { icon: "play", key: "run" }),
    may && waits && button("Reschedule", move, { icon: "clock", key: "move" }),
    may &&
      FINISHED.includes(shown.status) &&
      button("Retry", () => act(() => one("retry", shown.id), "Task runs again"), {
        icon: "retry",
        kind: shown.status === "FAILED" ? "primary" : "",
        key: "retry",
      }),
    !shown.redacted &&
      button(
        "Copy as curl",
        async () => {
          await toClipboard(curl(shown));
          app.say("Command copied: it makes the same task again");
        },
        { icon: "copy", key: "curl" },
      ),
    may &&
      LIVE.includes(shown.status) &&
      button(
        shown.cancel_requested_at ? "Cancel asked for" : "Cancel",
        sure(
          "cancel",
          waits ? "It is cancelled at once and does not run." : "Its worker is told to stop it. If it finishes first, that counts.",
        ),
        { icon: "cancel", kind: "danger", key: "cancel", disabled: Boolean(shown.cancel_requested_at) },
      ),
    may &&
      FINISHED.includes(shown.status) &&
      button("Delete", sure("delete", "It is gone for good, with its result and its attempts."), {
        icon: "trash",
        kind: "danger",
        key: "delete",
      }),
  );
}

function progress(shown) {
  if (shown.progress === null && !shown.progress_message) return null;
  const share = shown.progress ?? 0;
  return h(
    "div",
    { class: "progress", key: "progress" },
    shown.progress !== null && h("progress", { max: 1, value: share, "aria-label": "Progress" }),
    h("span", {}, shown.progress !== null && h("strong", {}, percent(share, 1)), shown.progress_message && ` ${shown.progress_message}`),
  );
}

function trace(shown, app) {
  const last = failedAttempts(shown).at(-1);
  return (
    last?.traceback &&
    h("details", { open: true }, h("summary", {}, "Traceback of the last attempt"), block(last.traceback, app, "Traceback"))
  );
}

// What happened, in order. A success leaves no row of its own: it is the end.
function timeline(shown, app) {
  const events = [{ at: shown.created_at, kind: "", title: "Created" }];
  for (const tried of failedAttempts(shown)) {
    const lost = tried.outcome === "LOST";
    const took = tried.run_ms === null ? "" : ` after ${duration(tried.run_ms / 1000)}`;
    events.push({
      at: tried.ended_at,
      kind: lost ? "cancelled" : "failed",
      title: lost ? `Attempt ${tried.attempt} was lost with its worker` : `Attempt ${tried.attempt} failed${took}`,
      body: [
        tried.worker && h("p", { class: "note" }, `on ${tried.worker}`),
        tried.error && block(tried.error, app, "Error", "error"),
        tried.traceback && h("details", {}, h("summary", {}, "Traceback"), block(tried.traceback, app, "Traceback")),
      ],
    });
  }
  if (shown.cancel_requested_at) events.push({ at: shown.cancel_requested_at, kind: "cancelled", title: "Cancel asked for" });
  events.sort((a, b) => (a.at < b.at ? -1 : 1));
  if (shown.status === "QUEUED" || shown.status === "RUNNING")
    events.push({
      at: since(shown),
      kind: shown.status.toLowerCase(),
      title: `Attempt ${shown.attempt} ${shown.status === "QUEUED" ? "is at a worker" : "is running"}`,
    });
  if (shown.finished_at)
    events.push({
      at: shown.finished_at,
      kind: shown.status.toLowerCase(),
      title: { COMPLETED: "Completed", FAILED: "Failed for good", CANCELLED: "Cancelled" }[shown.status],
    });
  if (shown.status === "PENDING")
    events.push({ at: shown.run_at, kind: "pending", title: shown.attempt ? `Attempt ${shown.attempt + 1} is due` : "Due" });
  return h(
    "ol",
    { class: "timeline" },
    events.map(({ at, kind, title, body }) => h("li", { class: kind }, h("strong", {}, title), at && time(at), body)),
  );
}

function described(shown) {
  const life = shown.finished_at && took(shown);
  return facts([
    ["Queue", h("a", { href: `#/tasks?queue=${encodeURIComponent(shown.queue)}` }, shown.queue)],
    ["Type", h("a", { href: `#/tasks?task_type=${encodeURIComponent(shown.task_type)}` }, shown.task_type)],
    ["Priority", PRIORITIES[shown.priority]],
    ["Attempts", shown.max_attempts ? `${shown.attempt} of ${shown.max_attempts}` : `${shown.attempt}; the handler says how many`],
    ["Timeout", shown.timeout === null ? "as the handler says" : duration(shown.timeout)],
    ["Run at", time(shown.run_at)],
    ["Created", time(shown.created_at)],
    ["Changed", time(shown.updated_at)],
    shown.finished_at && ["Finished", time(shown.finished_at)],
    life !== null && ["From due to done", duration(life)],
    shown.tags.length > 0 && ["Tags", tags(shown.tags, (name) => `#/tasks?tag=${encodeURIComponent(name)}`)],
    shown.unique_key && ["Unique key", h("code", {}, shown.unique_key)],
    shown.expires_at && ["Expires", time(shown.expires_at)],
    shown.backoff && [
      "Backoff",
      `${shown.backoff.kind}${shown.backoff.base ? `, from ${duration(shown.backoff.base)}` : ""}${shown.backoff.cap ? `, at most ${duration(shown.backoff.cap)}` : ""}`,
    ],
    shown.callback_url && ["Callback", h("code", {}, shown.callback_url)],
    shown.traceparent && ["Trace", h("code", {}, shown.traceparent)],
  ]);
}
