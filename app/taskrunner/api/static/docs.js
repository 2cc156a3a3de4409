// Shows openapi.json. What it says goes into text nodes only, so that nothing in it can become markup.
"use strict";

const byId = (id) => document.getElementById(id);

function element(name, { text, className, href, id } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (href) made.setAttribute("href", href);
  if (id) made.id = id;
  made.append(...children);
  return made;
}

const row = (...cells) => element("tr", {}, ...cells.map((cell) => (cell instanceof Node ? element("td", {}, cell) : element("td", { text: cell }))));
const code = (text) => element("code", { text });
const block = (value) => element("pre", {}, code(typeof value === "string" ? value : JSON.stringify(value, null, 2)));

function resolved(schema, models) {
  return schema.$ref ? models[schema.$ref.split("/").at(-1)] : schema;
}

// A type in a few words: "integer, 1 to 4", "array of string".
function words(schema, models) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  const options = schema.anyOf || schema.oneOf;
  if (options) return options.map((one) => words(one, models)).join(" or ");
  if (schema.type === "array") return `array of ${words(schema.items || {}, models)}`;
  if (schema.allOf) return schema.allOf.map((one) => words(one, models)).join(" and ");
  const limits = [];
  if (schema.minimum !== undefined) limits.push(`from ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) limits.push(`above ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) limits.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) limits.push(`at most ${schema.maxLength} characters`);
  const kind = [].concat(schema.type || "any JSON value").join(" or ");
  return [schema.format ? `${kind} (${schema.format})` : kind, ...limits].join(", ");
}

function fields(schema, models) {
  const found = resolved(schema, models);
  if (found.type === "array") return fields(found.items || {}, models);
  if (!found.properties) return element("p", { text: words(schema, models) });
  const required = new Set(found.required || []);
  const rows = Object.entries(found.properties).map(([name, field]) =>
    row(code(name), words(field, models), [required.has(name) ? "required" : "", field.description || ""].filter(Boolean).join("; ")));
  return element("table", {}, ...rows);
}

function content(kinds, models) {
  return Object.entries(kinds || {}).flatMap(([kind, { schema, example, examples }]) => {
    const shown = [element("p", {}, code(kind), document.createTextNode(` ${words(schema, models)}`))];
    if (kind !== "application/problem+json") shown.push(fields(schema, models));
    if (example !== undefined) shown.push(block(example));
    for (const { value } of Object.values(examples || {})) shown.push(block(value));
    return shown;
  });
}

function operation(path, method, op, models) {
  const body = element("div", {}, element("p", { text: op.description || "" }));
  if ((op.parameters || []).length) {
    const rows = op.parameters.map((one) => row(code(one.name), one.in, words(one.schema, models), one.description || ""));
    body.append(element("h3", { text: "Parameters" }), element("table", {}, ...rows));
  }
  if (op.requestBody) body.append(element("h3", { text: "Body" }), ...content(op.requestBody.content, models));
  for (const [status, answer] of Object.entries(op.responses)) {
    body.append(element("h3", { text: status }), element("p", { text: answer.description }));
    const headers = Object.entries(answer.headers || {}).map(([name, header]) => row(code(name), header.description || ""));
    if (headers.length) body.append(element("table", {}, ...headers));
    body.append(...content(answer.content, models));
  }
  const head = element("summary", {}, element("code", {}, element("b", { text: method.toUpperCase(), className: "method" }), document.createTextNode(path)),
    element("span", { text: op.summary }));
  return element("details", { id: op.operationId }, head, body);
}

function show(spec) {
  const models = spec.components.schemas;
  byId("title").textContent = `${spec.info.title} ${spec.info.version}: the API`;
  byId("about").textContent = spec.info.description;
  for (const { name } of spec.tags) {
    byId("operations").append(element("h2", { text: name }));
    for (const [path, methods] of Object.entries(spec.paths)) {
      for (const [method, op] of Object.entries(methods)) {
        if (!op.tags.includes(name)) continue;
        byId("contents").append(element("a", { text: `${method.toUpperCase()} ${path}`, href: `#${op.operationId}` }));
        byId("operations").append(operation(path, method, op, models));
      }
    }
  }
  unfold();
}

function unfold() {
  const chosen = location.hash && byId(location.hash.slice(1));
  if (chosen) {
    chosen.open = true;
    chosen.scrollIntoView();
  }
}

addEventListener("hashchange", unfold);
fetch("/api/openapi.json").then((answer) => answer.json()).then(show, (error) => { byId("about").textContent = String(error); });
