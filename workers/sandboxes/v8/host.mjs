// A Node process that runs other people's code in V8 isolates. Read this first, then job.mjs.
//
// The main thread never runs user code: isolated-vm runs each isolate in a thread of its own, so that an endless
// loop in one does not hold up the others, nor this process's answer to a worker that is gone.
//
// in:  {type: "run", id, source, filename, inputs, timeout_ms, memory_mb, max_output_bytes}   {type: "cancel", id}
// out: {type: "ready"}   {type: "log", id, level, text}   {type: "late", id}   {type: "fatal", id, message}
//      {type: "done", id, value} or {type: "done", id, kind, message, stack, line, column}
import { Stock } from "./isolates.mjs";
import { Job } from "./job.mjs";
import { open } from "./wire.mjs";

const settings = JSON.parse(process.argv[2]);
const stock = new Stock({ depth: settings.stock, limits: settings.limits });
const jobs = new Map();
const isIdle = () => jobs.size === 0;

const send = open((message) => {
  if (message.type === "cancel") return jobs.get(message.id)?.cancel();
  const job = new Job(message, send);
  jobs.set(message.id, job);
  job.run(stock).finally(() => {
    jobs.delete(message.id);
    if (isIdle()) setImmediate(() => stock.refill(isIdle));
  });
});

stock.warm(settings.warm_memory_mb);
await stock.refill(isIdle);
send({ type: "ready" });
