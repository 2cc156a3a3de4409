// What goes wrong, grouped: the same error of the same type is one row, however often it came.

import { get, withQuery } from "./api.js";
import { all } from "./actions.js";
import { h } from "./dom.js";
import { count, plural } from "./format.js";
import { button, choice, empty, table, time } from "./parts.js";

const SPANS = [
  ["3600", "1 h"],
  ["21600", "6 h"],
  ["86400", "24 h"],
  ["604800", "7 d"],
];

export const errors = {
  title: () => "Errors",
  stays: true,
  pace: 3000,
  every: () => 15000,

  async load(app, state, signal) {
    const span = SPANS.some(([value]) => value === app.query.get("span")) ? app.query.get("span") : "86400";
    const found = app.can("payloads") ? await get(withQuery("/api/errors", { window: span }), { signal }) : { items: [] };
    Object.assign(state, { span, items: found.items });
  },

  draw(app, { items, span }) {
    const spans = choice("Time span", SPANS, span, (value) => app.setQuery({ span: value }));
    if (!app.can("payloads"))
      return empty(
        "lock",
        "Errors are hidden",
        h("p", {}, "They may say what is in a payload. Your token does not have the scope “payloads”."),
      );
    const head = h(
      "div",
      { class: "row", key: "row" },
      h(
        "p",
        { class: "lead" },
        items.length ? `${plural(items.length, "kind")} of error, the most frequent first.` : "Errors of the same kind come together here.",
      ),
      spans,
    );
    if (!items.length) return [head, empty("check", "No errors", h("p", {}, "No task has failed for good in this time."))];
    return [
      head,
      h(
        "div",
        { class: "card flush", key: "table" },
        table({
          caption: "Errors",
          items,
          key: (one) => `${one.task_type} ${one.message}`,
          columns: [
            { label: "Tasks", class: "number", cell: (one) => h("strong", {}, count(one.count)) },
            {
              label: "Error",
              class: "grow message",
              cell: (one) => [
                h("a", { class: "strong", "data-row": "", href: withQuery("#/tasks", filterOf(one)) }, one.task_type),
                h("span", { class: "error" }, one.message ?? "hidden: your token does not have the scope “payloads”"),
              ],
            },
            { label: "Last", class: "when", cell: (one) => time(one.last_at) },
            {
              label: "",
              class: "act",
              cell: (one) => [
                one.example_id &&
                  h(
                    "a",
                    { class: "button plain", href: `#/tasks/${one.example_id}`, "aria-label": `An example of ${one.task_type}` },
                    "Example",
                  ),
                app.can("write") &&
                  button("Retry all", () => retry(app, one), { icon: "retry", "aria-label": `Retry all ${one.task_type}: ${one.message}` }),
              ],
            },
          ],
        }),
      ),
    ];
  },
};

const filterOf = (one) => ({ status: "FAILED", task_type: one.task_type, error: one.message });

async function retry(app, one) {
  const { status, ...rest } = filterOf(one);
  if (
    await all(
      app,
      "retry",
      { ...rest, status: [status], tag: [] },
      `All failed tasks of type ${one.task_type} with this error: ${one.message}`,
    )
  )
    await app.look();
}
