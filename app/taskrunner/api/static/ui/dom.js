// Elements from words, and one way to bring the page from what it shows to what it should show. Text only ever becomes a text node and
// attributes are set by name, so nothing that a task says can become markup.

const SVG = "http://www.w3.org/2000/svg";
const LIVE = new Set(["value", "checked", "indeterminate"]); // what a person changes: properties, not attributes

export const h = (name, props, ...children) => make(document.createElement(name), props, children);
export const svg = (name, props, ...children) => make(document.createElementNS(SVG, name), props, children);

function make(node, props, children) {
  node.listens = {};
  node.holds = {};
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "key") node.key = value;
    else if (name === "keep") node.keep = value;
    else if (typeof value === "function") listen(node, name, value);
    else if (LIVE.has(name)) node.holds[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...nodes(children));
  hold(node, {}, node.holds);
  return node;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one))));
}

// One listener for each kind of event for the life of a node: what it does may change with every drawing.
function listen(node, name, does) {
  if (!(name in node.listens)) node.addEventListener(name, (event) => node.listens[name]?.(event));
  node.listens[name] = does;
}

function hold(node, before, now) {
  for (const [name, value] of Object.entries(now)) {
    if (name === "value" ? before.value !== value : node[name] !== value) node[name] = value; // typing is not undone by a refresh
  }
}

// Make the children of a node what is wanted, and touch only what differs: focus, scrolling and what was opened stay.
export function morph(parent, ...children) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (child.key !== undefined) keyed.set(child.key, child);
  let next = parent.firstChild;
  for (const wanted of nodes(children)) {
    const found = wanted.key === undefined ? (next?.key === undefined ? next : null) : keyed.get(wanted.key);
    if (found && found.nodeType === wanted.nodeType && found.nodeName === wanted.nodeName) {
      if (found === next) next = next.nextSibling;
      else parent.insertBefore(found, next);
      update(found, wanted);
    } else parent.insertBefore(wanted, next);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

function update(node, wanted) {
  if (node === wanted) return;
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  for (const { name } of [...node.attributes]) if (!wanted.hasAttribute(name) && name !== "open") node.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (name !== "open" && node.getAttribute(name) !== value) node.setAttribute(name, value);
  for (const name of Object.keys(node.listens)) if (!(name in wanted.listens)) node.listens[name] = null;
  for (const [name, does] of Object.entries(wanted.listens)) listen(node, name, does);
  if (!wanted.keep) morph(node, ...wanted.childNodes);
  hold(node, node.holds, wanted.holds);
  node.holds = wanted.holds;
}
