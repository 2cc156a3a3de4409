// Numbers, durations and times for people. Times are shown as the service's clock has them: the browser's may be wrong.

const whole = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const seconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit", hour12: false });

let ahead = 0; // milliseconds by which the service's clock is ahead of ours

export function learnClock(date) {
  const off = Date.parse(date) - Date.now();
  if (Number.isFinite(off)) ahead = Math.abs(off) > 3000 ? off : 0;
}

export const now = () => Date.now() + ahead;
export const count = (n) => whole.format(n);
export const compact = (n) => (n < 10000 ? whole.format(Math.round(n)) : short.format(n));
export const rate = (n) => (n >= 100 ? compact(n) : tenths.format(n));
export const percent = (part, all) => (all > 0 ? `${tenths.format((100 * part) / all)} %` : "–");
export const plural = (n, word, words = `${word}s`) => `${count(n)} ${n === 1 ? word : words}`;
export const absolute = (at) => moment.format(new Date(at));
// For the axis of a chart over so many milliseconds.
export const axisTime = (at, span) => (span > 36 * 3600000 ? day : span < 600000 ? seconds : clock).format(new Date(at));

// 0.0023 → "2.3 ms", 75 → "1 min 15 s"
export function duration(length) {
  if (length === null || length === undefined) return "–";
  if (length < 0.0005) return "0 ms";
  if (length < 0.01) return `${tenths.format(length * 1000)} ms`;
  if (length < 1) return `${Math.round(length * 1000)} ms`;
  if (length < 10) return `${tenths.format(length)} s`;
  const units = [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  const first = units.findIndex(([, size]) => length >= size);
  const [name, size] = units[first];
  const major = Math.floor(length / size);
  const [minorName, minorSize] = units[first + 1] ?? [];
  const minor = minorSize && major < 10 ? Math.floor((length % size) / minorSize) : 0;
  return minor ? `${major} ${name} ${minor} ${minorName}` : `${major} ${name}`;
}

export function relative(at) {
  const until = (Date.parse(at) - now()) / 1000;
  const words = duration(Math.floor(Math.abs(until)));
  if (Math.abs(until) < 1) return "now";
  return until < 0 ? `${words} ago` : `in ${words}`;
}

// Seconds from when a task could start to its end. Null for one that never ran, or that was cancelled while it waited for another attempt.
export function took(task) {
  const seconds = (Date.parse(task.finished_at) - Math.max(Date.parse(task.run_at), Date.parse(task.created_at))) / 1000;
  return task.attempt && seconds >= 0 ? seconds : null;
}

// Since when a task is QUEUED or RUNNING: its last change, unless that was something else. Then nobody knows.
export const since = (task) =>
  task.progress === null && !task.progress_message && !task.cancel_requested_at && !task.redacted ? task.updated_at : null;

// As an <input type="datetime-local"> has it, and back.
export function localInput(at) {
  const date = new Date(at);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

export const fromLocalInput = (text) => new Date(text).toISOString();

// JSON with every integer as it was sent: a double would round what is beyond 2^53.
export function readJson(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && Number.isInteger(value) && context?.source && JSON.rawJSON
      ? JSON.rawJSON(context.source)
      : value,
  );
}

export const showJson = (value) => JSON.stringify(value, null, 2);

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The command that makes the same task again.
export function curl(task) {
  const body = { task_type: task.task_type, payload: task.payload };
  if (task.queue !== "default") body.queue = task.queue;
  if (task.priority !== 2) body.priority = task.priority;
  for (const name of ["max_attempts", "timeout", "callback_url", "backoff"]) if (task[name] !== null) body[name] = task[name];
  if (task.tags.length) body.tags = task.tags;
  if (Object.keys(task.metadata ?? {}).length) body.metadata = task.metadata;
  return `curl -X POST ${location.origin}/api/tasks \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`;
}
