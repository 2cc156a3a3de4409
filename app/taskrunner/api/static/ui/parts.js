// What every view is made of.

import { h } from "./dom.js";
import { absolute, duration, relative, showJson } from "./format.js";
import { icon, shape } from "./icons.js";

export const STATUSES = ["PENDING", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"];
export const LIVE = ["PENDING", "QUEUED", "RUNNING"];
export const FINISHED = ["COMPLETED", "FAILED", "CANCELLED"];

const WORDS = {
  PENDING: "Pending",
  QUEUED: "Queued",
  RUNNING: "Running",
  COMPLETED: "Completed",
  FAILED: "Failed",
  CANCELLED: "Cancelled",
  LIVE: "Live",
  DRAINING: "Draining",
  DEAD: "Gone",
};
export const word = (status) => WORDS[status] ?? status;

export const badge = (status) => h("span", { class: `badge ${status.toLowerCase()}` }, shape(status), word(status));

export const time = (at) => (at ? h("time", { datetime: at, title: absolute(at), "data-at": at }, relative(at)) : "–");

// Times of the page that nothing else draws anew.
export function tick(root) {
  for (const node of root.querySelectorAll("time[data-at]")) {
    const text = relative(node.dataset.at);
    if (node.textContent !== text) node.textContent = text;
  }
}

export const button = (label, does, { icon: drawn, kind = "", title, disabled, pressed, ...rest } = {}) =>
  h(
    "button",
    { type: "button", class: `button ${kind}`, click: does, title, disabled, "aria-pressed": pressed, ...rest },
    drawn && icon(drawn),
    h("span", {}, label),
  );

export const iconButton = (label, drawn, does, props = {}) =>
  h("button", { type: "button", class: "button plain square", click: does, "aria-label": label, title: label, ...props }, icon(drawn));

export const link = (href, ...children) => h("a", { href }, ...children);

export const card = (title, props, ...children) =>
  h(
    "section",
    { class: `card ${props.class ?? ""}`, "aria-label": title, key: props.key },
    h("header", {}, h("h2", {}, title), props.extra),
    ...children,
  );

export const empty = (drawn, title, ...children) => h("div", { class: "empty" }, icon(drawn), h("h2", {}, title), ...children);

// Of what every worker has built in, this asks nobody else: beside the embedded database a mail is a file.
const FIRST = '{"task_type": "email", "payload": {"to": "user@example.com", "message": "Hello"}}';
export const firstTask = () => [
  h("pre", {}, h("code", {}, `curl ${location.origin}/api/tasks -d '${FIRST}'`)),
  h(
    "p",
    { class: "note" },
    "With the embedded database the mail becomes a file. With your own, set ",
    h("code", {}, "TASKRUNNER_SMTP_URL"),
    " for the worker first.",
  ),
];

export function failed(error, again) {
  const head = error.status === 0 ? "The service cannot be reached" : error.status === 404 ? "Not found" : "That did not work";
  return h(
    "div",
    { class: "empty bad", role: "alert" },
    icon("errors"),
    h("h2", {}, head),
    h("p", {}, error.message),
    again && button("Try again", again, { icon: "retry" }),
  );
}

export const loading = () =>
  h(
    "div",
    { class: "skeleton", "aria-busy": "true", role: "status" },
    h("span", { class: "visually-hidden" }, "Loading…"),
    [9, 5, 7, 6, 8, 5].map((n) => h("i", { class: `w${n}` })),
  );

// Roles are said again: a phone shows rows as blocks, and the table should still be one.
export function table({ caption, columns, items, key, row, head }) {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      { role: "table" },
      h("caption", { class: "visually-hidden" }, caption),
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map((one) => h("th", { role: "columnheader", scope: "col", class: one.class }, one.head ? one.head() : one.label)),
        ),
      ),
      h(
        "tbody",
        { role: "rowgroup" },
        items.map((item, index) =>
          h(
            "tr",
            { role: "row", key: key(item), ...row?.(item, index) },
            columns.map((one) => h("td", { role: "cell", class: one.class, "data-label": one.label || null }, one.cell(item))),
          ),
        ),
      ),
    ),
    head,
  );
}

export const facts = (pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value ?? "–"))),
  );

export const meter = (part, all, label, kind = "") => {
  const share = all > 0 ? Math.min(1, part / all) : 0;
  return h(
    "span",
    { class: `meter ${kind}`, role: "img", "aria-label": label, title: label },
    h("progress", { max: 1, "aria-hidden": "true", value: share }),
  );
};

export function json(value, app, label) {
  const text = showJson(value);
  return h("div", { class: "code" }, h("pre", { tabindex: 0, "aria-label": label }, h("code", {}, text)), copy(text, app, label));
}

export const block = (text, app, label, kind = "") =>
  h("div", { class: `code ${kind}` }, h("pre", { tabindex: 0, "aria-label": label }, h("code", {}, text)), copy(text, app, label));

export const copy = (text, app, label) =>
  iconButton(
    `Copy ${label.toLowerCase()}`,
    "copy",
    async () => {
      await toClipboard(text);
      app.say(`${label} copied`);
    },
    { class: "button plain square copy" },
  );

// The clipboard API is missing on plain http: a selected text field is the old way.
export async function toClipboard(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      /* refused: the old way */
    }
  }
  const field = h("textarea", { class: "visually-hidden", value: text, "aria-hidden": "true" });
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

export const age = (seconds) => (seconds === null || seconds === undefined ? "–" : duration(seconds));

export const hidden = (what) => h("p", { class: "note" }, icon("lock"), `${what} hidden: your token does not have the scope “payloads”.`);

export const tags = (names, href) => names.map((name) => h("a", { class: "tag", href: href(name) }, name));

export const choice = (label, options, chosen, choose) =>
  h(
    "div",
    { class: "segments", role: "group", "aria-label": label },
    options.map(([value, text]) =>
      h("button", { type: "button", "aria-pressed": String(value === chosen), click: () => choose(value) }, text),
    ),
  );
