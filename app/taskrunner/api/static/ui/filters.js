// The words by which tasks are found: in the address, in the fields above the list, and said in a sentence.

import { h } from "./dom.js";
import { count, plural } from "./format.js";
import { icon, shape } from "./icons.js";
import { STATUSES, word } from "./parts.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export const FILTERS = ["status", "task_type", "queue", "tag", "error", "created_after", "created_before"];

const SPANS = [
  ["", "Any time"],
  ["900", "Last 15 minutes"],
  ["3600", "Last hour"],
  ["86400", "Last 24 hours"],
  ["604800", "Last 7 days"],
];

// The filter as the API takes it. A span is kept as such in the address, so that a bookmark stays of use.
export function filterOf(query) {
  const found = { status: (query.get("status") ?? "").split(",").filter(Boolean), tag: query.getAll("tag") };
  for (const name of ["task_type", "queue", "error", "created_after", "created_before"]) if (query.get(name)) found[name] = query.get(name);
  if (query.get("span")) found.created_after = new Date(Date.now() - 1000 * Number(query.get("span"))).toISOString();
  return found;
}

export const asQuery = (filter) => ({ ...filter, status: filter.status.length ? filter.status.join(",") : null });

export function search(app, state) {
  const find = (event) => {
    event.preventDefault();
    const text = event.target.elements.find.value.trim();
    if (UUID.test(text)) location.hash = `#/tasks/${text}`;
    else if (text.startsWith("tag:")) app.setQuery({ tag: [...app.query.getAll("tag"), text.slice(4).trim()], cursor: null });
    else if (text.startsWith("queue:")) app.setQuery({ queue: text.slice(6).trim(), cursor: null });
    else app.setQuery({ task_type: text, cursor: null });
    event.target.elements.find.value = "";
  };
  const set = (name) => (event) => app.setQuery({ [name]: event.target.value.trim(), cursor: null });
  return h(
    "div",
    { class: "filters", role: "search", key: "filters" },
    h(
      "form",
      { class: "find", submit: find },
      icon("search"),
      h("input", {
        name: "find",
        type: "search",
        "data-search": "",
        list: "types",
        placeholder: "Find by id, type, tag:… or queue:…",
        "aria-label": "Find by id, type, tag:… or queue:…",
        spellcheck: "false",
        autocomplete: "off",
      }),
    ),
    h(
      "select",
      { "aria-label": "Queue", change: set("queue"), value: app.query.get("queue") ?? "" },
      h("option", { value: "" }, "All queues"),
      names(state.names.queues, app.query.get("queue")).map((name) => h("option", { value: name }, name)),
    ),
    h(
      "select",
      { "aria-label": "Type", change: set("task_type"), value: app.query.get("task_type") ?? "" },
      h("option", { value: "" }, "All types"),
      names(state.names.types, app.query.get("task_type")).map((name) => h("option", { value: name }, name)),
    ),
    h(
      "select",
      { "aria-label": "Created", change: set("span"), value: app.query.get("span") ?? "" },
      SPANS.map(([value, text]) => h("option", { value }, text)),
    ),
  );
}

const names = (known, chosen) => (chosen && !known.includes(chosen) ? [...known, chosen] : known);

export function statusTabs(app, { filter, counts }) {
  const chosen = new Set(filter?.status ?? []);
  const turn = (status) => (event) => {
    event.preventDefault();
    const next = new Set(event.shiftKey || event.ctrlKey || event.metaKey ? chosen : []);
    if (chosen.has(status)) next.delete(status);
    else next.add(status);
    app.setQuery({ status: [...next].join(","), cursor: null });
  };
  const tab = (label, on, does, n, drawn) =>
    h(
      "button",
      { type: "button", class: "tab", "aria-pressed": String(on), click: does },
      drawn,
      label,
      n !== undefined && h("b", {}, count(n)),
    );
  return h(
    "div",
    { class: "tabs", role: "group", "aria-label": "Status; hold Shift to choose several", key: "tabs" },
    tab("All", !chosen.size, () => app.setQuery({ status: null, cursor: null })),
    STATUSES.map((status) => tab(word(status), chosen.has(status), turn(status), counts?.[status] ?? undefined, shape(status))),
  );
}

export function chips(app, filter) {
  if (!filter) return null;
  const chip = (label, value, without) =>
    h(
      "button",
      {
        type: "button",
        class: "chip",
        click: () => app.setQuery({ ...without, cursor: null }),
        "aria-label": `Remove the filter ${label} ${value}`,
      },
      h("span", {}, `${label} `, h("b", {}, value)),
      icon("close"),
    );
  const found = [
    filter.task_type && chip("type", filter.task_type, { task_type: null }),
    filter.queue && chip("queue", filter.queue, { queue: null }),
    ...filter.tag.map((tag) => chip("tag", tag, { tag: filter.tag.filter((other) => other !== tag) })),
    filter.error && chip("error", filter.error, { error: null }),
  ].filter(Boolean);
  return found.length ? h("div", { class: "chips", key: "chips" }, found) : null;
}

export function described(filter) {
  const words = [
    filter.status.length && `status ${filter.status.map(word).join(" or ")}`,
    filter.task_type && `type ${filter.task_type}`,
    filter.queue && `queue ${filter.queue}`,
    filter.tag.length && `${plural(filter.tag.length, "tag")} ${filter.tag.join(", ")}`,
    filter.error && `error “${filter.error}”`,
    filter.created_after && `created after ${new Date(filter.created_after).toLocaleString()}`,
  ].filter(Boolean);
  return words.length ? `All tasks with ${words.join(", ")}.` : "All tasks, whatever they are.";
}
