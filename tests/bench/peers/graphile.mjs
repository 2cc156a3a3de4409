// graphile-worker with the settings that were found fastest: `node graphile.mjs setup | load N | work`.
import { createRequire } from "node:module";
import fs from "node:fs";

const require = createRequire(process.env.PEER_MODULES + "/");
const { run, makeWorkerUtils, Logger } = require("graphile-worker");
const connectionString = process.env.PEER_DSN;
const logger = new Logger(() => () => {});
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const [command, count] = process.argv.slice(2);

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
} else {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  for (let i = 0; i < +(count ?? 0); i += 1000)
    await utils.addJobs(
      Array.from({ length: Math.min(1000, count - i) }, (_, k) => ({ identifier: "noop", payload: { i: i + k, t: 0, p: "x".repeat(55) } })),
    );
  await utils.release();
}
