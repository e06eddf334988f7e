// Measures isolates inside one Node process, without a pool around them. Started by bench_sandbox.py and bench_v8.py.
//
// arguments: KIND MEMORY_MB SOURCE
//   raw      a new isolate and context per run, with nothing in it but the code: isolated-vm by itself
//   code     the code alone, in an isolate that was made ready and is thrown away outside the measured time
//   context  a new context per run in an isolate that is kept, for RUNS_KEPT runs or until its heap is half full
// in, one JSON value per line: {runs, pause_ms} or {seconds}       out: the milliseconds of each run, as a JSON array
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

import { evaluate } from "../workers/sandboxes/v8/evaluate.mjs";
import { fresh, furnish } from "../workers/sandboxes/v8/isolates.mjs";

const ivm = createRequire(new URL("../workers/sandboxes/v8/host.mjs", import.meta.url))("isolated-vm");
const [kind, memory, source] = process.argv.slice(2);
const memoryLimit = Number(memory);
const RUNS_KEPT = 100;
const INPUTS = { name: "flo" };

const now = () => performance.now();

function runRaw() {
  const isolate = new ivm.Isolate({ memoryLimit });
  const context = isolate.createContextSync();
  const module = isolate.compileModuleSync(source, { filename: "code.js" });
  module.instantiateSync(context, () => {});
  module.evaluateSync();
  const run = module.namespace.getSync("default", { reference: true });
  run.applySync(undefined, [new ivm.ExternalCopy(INPUTS).copyInto()], { result: { copy: true } });
  isolate.dispose();
}

async function runIn(cell) {
  const { finished } = await evaluate(cell, source, "code.js");
  finished?.catch(() => {});
  const answer = await cell.host.apply(undefined, ["run", JSON.stringify(INPUTS), 1e6], { result: { promise: true } });
  if (answer[0] !== "=") throw new Error(answer);
}

let kept;
let runsLeft = 0;

/** Gives a context of its own to each run; its isolate is renewed before it can fail for want of memory. */
async function runInContext() {
  if (runsLeft-- === 0) {
    kept?.isolate.dispose();
    kept = fresh(memoryLimit);
    runsLeft = RUNS_KEPT;
  } else {
    furnish(kept);
  }
  await runIn(kept);
  kept.host.release();
  kept.context.release();
  if (runsLeft % 10 === 0 && kept.isolate.getHeapStatisticsSync().used_heap_size > memoryLimit * 2 ** 19) runsLeft = 0;
}

async function once() {
  if (kind === "code") {
    const cell = fresh(memoryLimit);
    const began = now();
    await runIn(cell);
    const took = now() - began;
    cell.isolate.dispose();
    return took;
  }
  const began = now();
  await (kind === "raw" ? runRaw() : runInContext());
  return now() - began;
}

async function measure({ runs = Infinity, pause_ms: rest = 0, seconds = Infinity }) {
  const times = [];
  const end = now() + seconds * 1000;
  while (times.length < runs && now() < end) {
    times.push(await once());
    if (rest) await pause(rest);
  }
  return times;
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await measure(JSON.parse(line))));
}
