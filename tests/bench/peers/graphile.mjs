// graphile-worker with the settings that were found fastest: `node graphile.mjs load N | work | trickle RATE N`.
import { createRequire } from "node:module";
import fs from "node:fs";

const require = createRequire(process.env.PEER_MODULES + "/");
const { run, makeWorkerUtils, Logger } = require("graphile-worker");
const connectionString = process.env.PEER_DSN;
const logger = new Logger(() => () => {});
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const [command, ...numbers] = process.argv.slice(2);

if (command === "work") {
  const seen = [];
  process.on("SIGTERM", () => {
    fs.writeFileSync(`${process.env.BENCH_DIR}/seen-${process.pid}.json`, JSON.stringify(seen));
    process.exit(0);
  });
  const worker = {
    connectionString,
    maxPoolSize: 10,
    concurrentJobs: 500,
    pollInterval: 100,
    localQueue: { size: 4000 },
    completeJobBatchDelay: 50,
    failJobBatchDelay: 50,
  };
  const taskList = { noop: (payload) => void seen.push([payload.i, payload.t, now()]) };
  await run({ taskList, logger, noHandleSignals: true, preset: { worker } });
} else if (command === "trickle") {
  const { Pool } = require("pg");
  const utils = await makeWorkerUtils({ pgPool: new Pool({ connectionString, max: 32 }), logger });
  const [rate, n] = numbers.map(Number);
  const sent = [];
  const began = now() + 0.05;
  for (let k = 0; k < n + rate; k += 1) {
    await new Promise((resolve) => setTimeout(resolve, (began + k / rate - now()) * 1000));
    sent.push(utils.addJob("noop", { i: k < rate ? -1 - k : k - rate, t: now(), p: "x".repeat(55) }));
  }
  await Promise.all(sent);
  process.exit(0);
} else {
  const [count] = numbers;
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  for (let i = 0; i < +count; i += 1000)
    await utils.addJobs(
      Array.from({ length: Math.min(1000, count - i) }, (_, k) => ({ identifier: "noop", payload: { i: i + k, t: 0, p: "x".repeat(55) } })),
    );
  await utils.release();
}
