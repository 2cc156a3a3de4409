// Your handlers by task type, and the worker that runs them: npm ci && SCHEDULER_ADDRESS=localhost:10000 npm start
import { Fail, work } from './worker.mjs';

await work({
  greet: async (ctx, payload) => {
    if (!payload.name) throw new Fail('whom?'); // for good; anything else that is thrown is retried with backoff
    return { text: `Hello, ${payload.name}!`, task: ctx.id, attempt: ctx.attempt };
  },
});
