// The form for a new task. What the service refuses is said at the field that it names.

import { ask, freshKey, get } from "./api.js";
import { h } from "./dom.js";
import { fromLocalInput, localInput, now, showJson } from "./format.js";
import { button, choice } from "./parts.js";

const FIELDS = ["task_type", "payload", "queue", "priority", "run_at", "delay", "max_attempts", "timeout", "tags", "unique_key"];

export const create = {
  title: () => "New task",
  quiet: true,
  early: true, // what it asks for only helps to fill it in
  begin: () => ({ when: "now", faults: {}, draft: { payload: "{}", queue: "default", priority: "2", task_type: "" } }),

  async load(app, state, signal) {
    if (state.known) return;
    const [types, queues, like] = await Promise.all([
      get("/api/types", { signal }),
      get("/api/queues", { signal }),
      app.query.get("like") ? get(`/api/tasks/${encodeURIComponent(app.query.get("like"))}`, { signal }).catch(() => null) : null,
    ]);
    state.known = { types: types?.items.map((one) => one.name) ?? [], queues: queues?.items.map((one) => one.name) ?? [] };
    if (like && !like.redacted)
      state.draft = {
        ...state.draft,
        task_type: like.task_type,
        payload: showJson(like.payload),
        queue: like.queue,
        priority: String(like.priority),
        tags: like.tags.join(", "),
        max_attempts: like.max_attempts ?? "",
        timeout: like.timeout ?? "",
      };
    if (app.query.get("type")) state.draft.task_type = app.query.get("type");
  },

  draw(app, state) {
    const { draft, faults, known } = state;
    const field = (name, label, input, hint) => {
      const fault = faults[name];
      input.id = `field-${name}`;
      if (fault) input.setAttribute("aria-invalid", "true");
      if (fault || hint) input.setAttribute("aria-describedby", `about-${name}`);
      return h(
        "div",
        { class: "field", key: name },
        h("label", { for: `field-${name}` }, label),
        input,
        (fault || hint) && h("p", { id: `about-${name}`, class: fault ? "problem" : "note" }, fault ?? hint),
      );
    };
    const text = (name, props = {}) => h("input", { name, value: draft[name] ?? "", spellcheck: "false", autocomplete: "off", ...props });
    if (!app.can("write")) return h("p", { class: "lead" }, "Your token may look and not create tasks: that needs the scope “write”.");
    return h(
      "form",
      { class: "card new", submit: (event) => send(event, app, state), novalidate: true },
      state.problem && h("p", { class: "problem banner", role: "alert", tabindex: -1 }, state.problem),
      field(
        "task_type",
        "Type",
        text("task_type", { list: "known-types", required: true, placeholder: "email" }),
        "Which handler runs it. One that no worker knows waits until a worker does.",
      ),
      field(
        "payload",
        "Payload",
        h("textarea", { name: "payload", rows: 8, value: draft.payload, spellcheck: "false", class: "mono" }),
        "Any JSON value, at most 256 KiB.",
      ),
      h(
        "div",
        { class: "pair" },
        field("queue", "Queue", text("queue", { list: "known-queues" })),
        field(
          "priority",
          "Priority",
          h(
            "select",
            { name: "priority", value: draft.priority },
            [
              ["1", "1, first"],
              ["2", "2, as usual"],
              ["3", "3"],
              ["4", "4, last"],
            ].map(([value, label]) => h("option", { value }, label)),
          ),
        ),
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "When"),
        choice(
          "When",
          [
            ["now", "Now"],
            ["delay", "After a delay"],
            ["at", "At a time"],
          ],
          state.when,
          (value) => {
            state.when = value;
            app.redraw();
          },
        ),
        state.when === "delay" &&
          field("delay", "Seconds from now", text("delay", { type: "number", min: 0, step: "any", placeholder: "90" })),
        state.when === "at" &&
          field(
            "run_at",
            "Time, in your time zone",
            h("input", { name: "run_at", type: "datetime-local", step: 1, value: draft.run_at ?? localInput(new Date(now() + 3600000)) }),
          ),
      ),
      h(
        "details",
        {},
        h("summary", {}, "More"),
        h(
          "div",
          { class: "pair" },
          field(
            "max_attempts",
            "Attempts at most",
            text("max_attempts", { type: "number", min: 1, max: 1000, placeholder: "as the handler says" }),
          ),
          field(
            "timeout",
            "Timeout of an attempt, in seconds",
            text("timeout", { type: "number", min: 0, step: "any", placeholder: "as the handler says" }),
          ),
        ),
        h(
          "div",
          { class: "pair" },
          field("tags", "Tags, separated by commas", text("tags")),
          field("unique_key", "Unique key", text("unique_key"), "Only one live task may have it."),
        ),
      ),
      h(
        "div",
        { class: "actions" },
        h("a", { class: "button plain", href: "#/tasks" }, "Back"),
        button("Tidy payload", () => tidy(app, state), {}),
        h("button", { type: "submit", class: "button primary", disabled: state.busy }, "Create task"),
      ),
      h(
        "datalist",
        { id: "known-types" },
        (known?.types ?? []).map((value) => h("option", { value })),
      ),
      h(
        "datalist",
        { id: "known-queues" },
        (known?.queues ?? []).map((value) => h("option", { value })),
      ),
    );
  },
};

function tidy(app, state) {
  const area = document.getElementById("field-payload");
  try {
    JSON.parse(area.value);
    area.value = showTidy(area.value);
    delete state.faults.payload;
  } catch (error) {
    state.faults = { ...state.faults, payload: notJson(error) };
  }
  app.redraw();
}

// Laid out anew without reading the numbers: a large integer stays as it was typed.
function showTidy(text) {
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return text
    .match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g)
    .map((token, index, all) => {
      const follows = all[index + 1];
      if (token === "{" || token === "[") {
        depth += 1;
        return follows === "}" || follows === "]" ? token : token + line();
      }
      if (token === "}" || token === "]") {
        depth -= 1;
        const before = all[index - 1];
        return before === "{" || before === "[" ? token : line() + token;
      }
      return token === "," ? token + line() : token === ":" ? ": " : token;
    })
    .join("");
}

const notJson = (error) => `is not JSON: ${error.message.replace(/^JSON\.parse: /, "")}`;

async function send(event, app, state) {
  event.preventDefault();
  const form = new FormData(event.target);
  const said = (name) => (form.get(name) ?? "").toString().trim();
  state.draft = Object.fromEntries(FIELDS.map((name) => [name, form.get(name) ?? state.draft[name]]));
  state.faults = {};
  state.problem = null;
  const payload = said("payload") || "{}";
  const body = { task_type: said("task_type"), queue: said("queue") || "default", priority: Number(said("priority")) };
  if (state.when === "delay") body.delay = Number(said("delay") || NaN);
  if (state.when === "at" && said("run_at")) body.run_at = fromLocalInput(said("run_at"));
  for (const name of ["max_attempts", "timeout"]) if (said(name)) body[name] = Number(said(name));
  if (said("tags"))
    body.tags = said("tags")
      .split(",")
      .map((tag) => tag.trim())
      .filter(Boolean);
  if (said("unique_key")) body.unique_key = said("unique_key");
  if (!body.task_type) state.faults.task_type = "is required";
  if (Number.isNaN(body.delay)) state.faults.delay = "must be a number of seconds";
  try {
    JSON.parse(payload);
  } catch (error) {
    state.faults.payload = notJson(error);
  }
  state.busy = !Object.keys(state.faults).length;
  app.redraw();
  if (state.busy) await make(app, state, `${JSON.stringify(body).slice(0, -1)},"payload":${payload}}`);
  document.querySelector("form.new [aria-invalid]")?.focus();
}

async function make(app, state, text) {
  if (state.sent !== text) Object.assign(state, { sent: text, key: freshKey() }); // sent again after a broken connection it makes no second task
  try {
    const made = await ask("POST", "/api/tasks", { text, headers: { "Idempotency-Key": state.key } });
    app.say(made.deduplicated ? "A live task has this unique key already: this is it." : "Task created", { kind: "good" });
    location.hash = `#/tasks/${made.id}`;
  } catch (error) {
    if (error.status) state.sent = null;
    for (const { pointer, detail } of error.faults ?? []) state.faults[pointer?.split("/")[1] ?? ""] ??= detail;
    const named = Object.keys(state.faults).some((name) => FIELDS.includes(name));
    state.problem = named ? "The service refused this task: see the fields that are marked." : error.message;
  }
  state.busy = false;
  app.redraw();
}
