// The handlers of the tests, beside a copy of examples/node-worker.
import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Fail, work } from './worker.mjs';

const write = (what, ctx) => appendFileSync(process.env.JOURNAL, `${what} ${ctx.id} ${process.pid}\n`);

await work({
  work: async (ctx, payload) => {
    write('start', ctx);
    await sleep(payload.seconds * 1000, undefined, { signal: ctx.signal });
    write('done', ctx);
    return { n: payload.n };
  },
  echo: async (ctx, payload) => payload,
  nothing: async () => {},
  fail: async (ctx, payload) => { throw new Fail(payload); },
  retry: async (ctx) => { if (ctx.attempt === 1) throw new TypeError('not yet'); return ctx.attempt; },
}, { slots: 5, grace: Number(process.env.GRACE ?? 5) });
