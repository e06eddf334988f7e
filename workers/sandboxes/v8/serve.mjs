// What every host program does: read orders, run each in a cell of its own, and make cells ahead while nothing is asked.
//
// in:  {type: "run", id, source, filename, inputs, timeout_ms, memory_mb, max_output_bytes}   {type: "cancel", id}
// out: {type: "ready"}   {type: "log", id, level, text}   {type: "late", id}   {type: "fatal", id, message}
//      {type: "done", id, value} or {type: "done", id, kind, message, stack, line, column}
import { Stock } from "./stock.mjs";
import { open } from "./wire.mjs";

/** Pause before the work that nobody waits for: done at once, it would hold up the reading of the answer it follows. */
const REST_MS = 4;

/** Serves for ever. `Job` is a class with `run()`, which never throws, and `dispose()`; see `Stock` for the others. */
export function serve({ fresh, discard, Job }) {
  const settings = JSON.parse(process.argv[2]);
  const stock = new Stock(settings.stock, fresh, discard);
  const jobs = new Map();
  let used = [];

  const send = open((message) => {
    if (message.type === "cancel") return void jobs.get(message.id)?.dispose();
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

  /** Makes ready cells while there is nothing else to do, one per turn. */
  function refill() {
    if (jobs.size === 0 && stock.add()) setImmediate(refill);
  }

  stock.keep(settings.warm_memory_mb);
  while (stock.add());
  send({ type: "ready" });
}
