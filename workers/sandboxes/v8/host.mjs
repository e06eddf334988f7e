// A Node process that runs other people's code in V8 isolates. Read this first, then job.mjs.
//
// The main thread never runs user code: isolated-vm gives each running isolate a thread of its own, so that an endless
// loop in one holds up neither the others nor this process's leaving when its worker is gone.
//
// in:  {type: "run", id, source, filename, inputs, timeout_ms, memory_mb, max_output_bytes}   {type: "cancel", id}
// out: {type: "ready"}   {type: "log", id, level, text}   {type: "late", id}   {type: "fatal", id, message}
//      {type: "done", id, value} or {type: "done", id, kind, message, stack, line, column}
import { Stock } from "./isolates.mjs";
import { Job } from "./job.mjs";
import { open } from "./wire.mjs";

const settings = JSON.parse(process.argv[2]);
const stock = new Stock(settings.stock);
const jobs = new Map();
let used = [];
/** Pause before the work that nobody waits for: done at once, it would hold up the reading of the answer it follows. */
const REST_MS = 4;

const send = open((message) => {
  if (message.type === "cancel") return jobs.get(message.id)?.dispose();
  return void start(message);
});

async function start(order) {
  const job = new Job(order, stock.take(order.memory_mb), send);
  jobs.set(order.id, job);
  await job.run();
  jobs.delete(order.id);
  used.push(job);
  if (used.length === 1) setTimeout(tidy, REST_MS);
}

function tidy() {
  for (const job of used) job.dispose();
  used = [];
  refill();
}

/** Makes ready isolates while there is nothing else to do, one per turn. */
function refill() {
  if (jobs.size === 0 && stock.add()) setImmediate(refill);
}

stock.keep(settings.warm_memory_mb);
while (stock.add());
send({ type: "ready" });
