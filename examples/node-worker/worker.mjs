// A taskrunner worker: both streams, one session, outcomes kept until they are confirmed. What it must do and why: docs/worker-protocol.md
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = process.env.TASKRUNNER_PROTO ?? fileURLToPath(new URL('../../proto', import.meta.url));
const contract = loadSync('taskrunner/v1/scheduler.proto', { includeDirs: [PROTO], keepCase: true, longs: Number, enums: String, defaults: true });
const { Scheduler } = grpc.loadPackageDefinition(contract).taskrunner.v1;
const now = () => performance.now() / 1000; // monotonic: wall clocks jump
const uuid = (id) => id.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
const split = (blob, width) => Array.from({ length: blob.length / width }, (_, n) => blob.subarray(n * width, (n + 1) * width));
const keys = (ids, epochs) => split(ids, 16).map((id, n) => Buffer.concat([id, split(epochs, 8)[n]]).toString('hex'));
const column = (values, width, write) => {
  const blob = Buffer.alloc(values.length * width);
  values.forEach((value, n) => blob[write](value, n * width));
  return blob;
};

// Seconds until the next try. What the task itself wants comes first; full jitter keeps those apart that failed together.
const backoff = (attempt, { kind = 'exponential', base = 1, cap = 3600 } = {}) =>
  kind === 'linear' ? Math.min(cap, base * attempt)
    : kind === 'constant' ? Math.min(cap, base)
    : Math.random() * Math.min(cap, base * 2 ** (attempt - 1));

export class Fail extends Error {} // FAILED, whatever attempts are left

export async function work(handlers, { addresses, slots = 10, grace = 30 } = {}) {
  addresses ??= (process.env.SCHEDULER_ADDRESS ?? 'localhost:10000').split(',');
  let session = randomBytes(16), resumed = false, streams = 0, beatEvery = 3, lease = 15;
  let held = new Map(); // by id and epoch: everything received, running or not yet confirmed
  let waiting = [], outbox = [], sent = new Map(), batch = 0, running = 0;
  let trustedUntil = 0, stopping = false, stream = null, turn = 0;

  // ── attempts ──
  function take(tasks) {
    keys(tasks.ids, tasks.epochs).forEach((key, n) => {
      const entry = {
        key, id: tasks.ids.subarray(n * 16, n * 16 + 16), epoch: tasks.epochs.subarray(n * 8, n * 8 + 8),
        attempt: tasks.attempts.readInt32BE(n * 4), maxAttempts: tasks.max_attempts.readInt32BE(n * 4),
        timeout: tasks.timeouts.readFloatBE(n * 4), payload: tasks.payloads[n],
        backoff: tasks.backoffs[n]?.length ? JSON.parse(tasks.backoffs[n]) : undefined,
        handler: handlers[tasks.task_type], abort: new AbortController(),
      };
      held.set(key, entry);
      waiting.push(entry);
    });
    pump();
  }
  function pump() { // nothing starts on a lease that may be over
    while (waiting.length && running < slots && now() < trustedUntil && !stopping) run(waiting.shift());
  }
  async function run(entry) {
    running += 1;
    const began = now(), { signal } = entry.abort;
    const timer = setTimeout(() => entry.abort.abort('timeout'), Math.min(entry.timeout * 1000, 2 ** 31 - 1));
    const stopped = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    const context = { id: uuid(entry.id), attempt: entry.attempt, maxAttempts: entry.maxAttempts, signal };
    let outcome;
    try {
      const result = await Promise.race([(async () => entry.handler(context, JSON.parse(entry.payload)))(), stopped]);
      outcome = { outcome: 'OUTCOME_COMPLETED', result: result == null ? Buffer.alloc(0) : Buffer.from(JSON.stringify(result)) };
    } catch (error) {
      outcome = signal.reason === 'cancel' ? { outcome: 'OUTCOME_CANCELLED' }
        : signal.reason === 'stop' ? { outcome: 'OUTCOME_SNOOZED' } // it did not get done here: again at once, and the attempt does not count
        : error instanceof Fail ? { outcome: 'OUTCOME_FAILED', error: error.message }
        : { outcome: 'OUTCOME_RETRY', delay: backoff(entry.attempt, entry.backoff), traceback: error?.stack,
            error: signal.reason === 'timeout' ? `timed out after ${entry.timeout} s` : String(error) };
    }
    clearTimeout(timer);
    running -= 1;
    report(entry, { ...outcome, ms: Math.round((now() - began) * 1000) });
    pump();
  }
  function report(entry, outcome) {
    if (held.get(entry.key) !== entry) return; // lost meanwhile: somebody else may run it already
    outbox.push({ ...entry, ...outcome });
    if (outbox.length === 1) setImmediate(flush); // what ends in this turn of the loop goes together
  }
  function flush() {
    if (!stream) return; // said again after the next Welcome
    const ended = outbox;
    outbox = [];
    for (const outcome of new Set(ended.map((o) => o.outcome))) {
      const all = ended.filter((o) => o.outcome === outcome);
      sent.set(++batch, all);
      stream.write({ outcomes: {
        batch, outcome, ids: Buffer.concat(all.map((o) => o.id)), epochs: Buffer.concat(all.map((o) => o.epoch)),
        results: outcome === 'OUTCOME_COMPLETED' ? all.map((o) => o.result) : [],
        errors: all.map((o) => o.error ?? ''), tracebacks: all.map((o) => o.traceback ?? ''),
        delays: column(all.map((o) => o.delay ?? 0), 8, 'writeDoubleBE'), run_ms: column(all.map((o) => o.ms ?? 0), 4, 'writeInt32BE'),
      } });
    }
  }
  function drop(gone) { // these are not ours any more: nobody is told how they end
    for (const key of gone) { held.get(key)?.abort.abort('lost'); held.delete(key); }
    [waiting, outbox] = [waiting, outbox].map((list) => list.filter((entry) => held.has(entry.key)));
    for (const [n, all] of sent) sent.set(n, all.filter((o) => held.has(o.key)));
  }
  function over(dead) {
    if (!dead.equals(session)) return;
    drop([...held.keys()]);
    [session, resumed, trustedUntil] = [randomBytes(16), false, 0];
    stream?.end();
  }

  // ── the Work stream ──
  async function converse(address) { // returns when the stream is over
    const client = new Scheduler(address, grpc.credentials.createInsecure());
    const line = client.Work(), began = now();
    let heard = now(); // a beat without any message is filled by an empty one: silence means that the scheduler hangs
    const watch = setInterval(() => { if (now() - heard > lease / 2) line.cancel(); }, 100);
    const ended = new Promise((resolve) => line.on('end', resolve).on('error', (error) => { console.error(`work: ${error.message}`); resolve(); }));
    line.on('data', (message) => {
      heard = now();
      if (message.welcome) welcomed(line, message.welcome, began);
      else if (message.tasks) take(message.tasks);
      else if (message.settled) settled(message.settled);
      else if (message.cancel) cancel(keys(message.cancel.ids, message.cancel.epochs));
      else if (message.goodbye) line.end(); // this scheduler stops: go on with another one
    });
    line.write({ hello: { protocol: 1, session, stream: ++streams, resumed, name: `${hostname()}:${process.pid}`, task_types: Object.keys(handlers), queues: ['*'],
      capacity: { slots: stopping ? 0 : slots, prefetch: 0 },
      ids: Buffer.concat([...held.values()].map((e) => e.id)), epochs: Buffer.concat([...held.values()].map((e) => e.epoch)) } });
    await ended;
    clearInterval(watch);
    stream = null;
    client.close();
  }
  function welcomed(line, welcome, began) {
    if (welcome.over) { over(session); line.end(); return; }
    drop(keys(welcome.lost_ids, welcome.lost_epochs));
    outbox = [...[...sent.values()].flat(), ...outbox]; // what was not confirmed is said again, numbered from 1
    [stream, resumed, batch, beatEvery, lease] = [line, true, 0, welcome.beat, welcome.lease];
    sent.clear();
    trustedUntil = Math.max(trustedUntil, began + 0.8 * lease);
    if (stopping) line.write({ goodbye: { reason: 'the worker stops' } });
    if (outbox.length) flush();
    pump();
  }
  function settled({ batches, stale_ids }) {
    for (const n of batches) { for (const o of sent.get(n) ?? []) held.delete(o.key); sent.delete(n); }
    for (const id of split(stale_ids, 16)) console.error(`${uuid(id)}: too late, it was no longer ours`);
  }
  function cancel(asked) {
    for (const entry of waiting.filter((e) => asked.includes(e.key))) report(entry, { outcome: 'OUTCOME_CANCELLED' });
    waiting = waiting.filter((e) => !asked.includes(e.key));
    for (const key of asked) held.get(key)?.abort.abort('cancel');
  }

  // ── the Beat stream: its own connection, so that one of the two may break ──
  async function beat(address) {
    const client = new Scheduler(address, grpc.credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    const line = client.Beat();
    try {
      let answered, broken;
      const failed = new Promise((_, reject) => { broken = reject; line.on('error', reject); line.on('end', () => reject(new Error('ended'))); });
      failed.catch(() => {}); // seen by the race below
      line.on('data', (reply) => answered(reply));
      while (resumed) {
        const mine = session, asked = now();
        const reply = new Promise((resolve) => { answered = resolve; });
        line.write({ session: mine, lag: 0 });
        const late = setTimeout(() => broken(new Error('no answer within a beat')), beatEvery * 1000);
        const { over: dead, drain, cancel_ids, cancel_epochs } = await Promise.race([reply, failed]).finally(() => clearTimeout(late));
        if (dead) return over(mine);
        if (drain && !stopping) stop();
        trustedUntil = Math.max(trustedUntil, asked + 0.8 * lease);
        cancel(keys(cancel_ids, cancel_epochs));
        pump();
        await Promise.race([sleep(Math.max(0, (asked + beatEvery - now()) * 1000)), failed]);
      }
    } finally {
      line.cancel();
      client.close();
    }
  }

  // ── as long as it lives ──
  const done = () => stopping && !held.size;
  const repeat = async (act) => { // the first try after a stream that lasted comes at once, later ones with jitter
    for (let tries = 0; !done(); tries += 1) {
      const began = now();
      await act(addresses[turn++ % addresses.length]).catch((error) => console.error(error.message));
      if (now() - began > 1) tries = 0;
      else await sleep(Math.random() * Math.min(2000, 100 * 2 ** tries));
    }
  };
  const stop = async () => { // take nothing more, give back what waits, finish what runs, see it confirmed
    stopping = true;
    stream?.write({ goodbye: { reason: 'the worker stops' } });
    for (const entry of waiting.splice(0)) report(entry, { outcome: 'OUTCOME_RELEASED' });
    const ends = now() + grace;
    while (running && now() < ends) await sleep(20);
    for (const entry of held.values()) entry.abort.abort('stop');
    while (held.size && now() < ends + 1) await sleep(20);
    if (stream && !held.size) {
      const heard = new Promise((resolve) => stream.on('end', resolve));
      stream.write({ goodbye: { reason: 'the worker stops', last: true } });
      stream.end();
      await Promise.race([heard, sleep(300)]);
    }
    process.exit(held.size ? 1 : 0);
  };
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, stop);
  await Promise.all([repeat(converse), repeat(async (address) => { while (!resumed) await sleep(10); return beat(address); })]);
}
