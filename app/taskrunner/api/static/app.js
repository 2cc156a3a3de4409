"use strict";
// Counts and latest tasks, asked for every two seconds while somebody looks. Whatever comes from tasks is only ever put into text nodes.

const EVERY_MS = 2000;
const GIVE_UP_MS = 10000;
const STATUSES = ["PENDING", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"];

const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const time = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

function element(name, text, className) {
  const node = document.createElement(name);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(GIVE_UP_MS) });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `the service answered ${answer.status}`);
  return body;
}

function showCounts(counts) {
  byId("counts").replaceChildren(
    ...STATUSES.map((status) => {
      const box = element("div", "", status.toLowerCase());
      box.append(element("dt", status), element("dd", number.format(counts[status] ?? 0)));
      return box;
    }),
  );
}

function row(task) {
  const line = document.createElement("tr");
  const status = element("td", "");
  const mark = element("span", task.status, `mark ${task.status.toLowerCase()}`);
  if (task.error) mark.title = task.error;
  status.append(mark);
  const attempts = task.max_attempts === null ? `${task.attempt}` : `${task.attempt} of ${task.max_attempts}`;
  const link = element("a", task.id);
  link.href = `/api/tasks/${encodeURIComponent(task.id)}`;
  const id = element("td", "", "id");
  id.append(link);
  const due = element("td", time.format(new Date(task.run_at)));
  line.append(status, element("td", task.task_type), element("td", task.queue), due, element("td", attempts), id);
  return line;
}

function showTasks(tasks) {
  byId("rows").replaceChildren(...tasks.map(row));
  byId("tasks").hidden = tasks.length === 0;
  byId("empty").hidden = tasks.length !== 0;
}

function showState(text, bad) {
  const state = byId("state");
  if (state.textContent !== text) state.textContent = text; // a screen reader speaks only when it changes
  state.className = bad ? "bad" : "";
  document.body.classList.toggle("stale", bad);
}

async function refresh() {
  try {
    const [stats, page] = await Promise.all([ask("/api/stats"), ask("/api/tasks?limit=20")]);
    showCounts(stats.tasks);
    showTasks(page.items);
    showState("Live", false);
  } catch (error) {
    const reached = !(error instanceof TypeError) && error.name !== "TimeoutError" && error.name !== "AbortError";
    showState(reached ? `Not ready: ${error.message}` : "Cannot reach the service. Trying again…", true);
  }
}

let timer = null;
let busy = false;

async function tick() {
  clearTimeout(timer);
  if (busy || document.hidden) return;
  busy = true;
  await refresh();
  busy = false;
  timer = setTimeout(tick, EVERY_MS);
}

byId("hint").textContent = `curl ${location.origin}/api/tasks -d '{"task_type": "webhook", "payload": {"url": "https://example.com/hook"}}'`;
document.addEventListener("visibilitychange", tick);
tick();
