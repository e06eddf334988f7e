// Fresh worker threads, each of which runs `thread.mjs` and waits for its order.
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";

const THREAD = new URL("thread.mjs", import.meta.url);
const TELLING = readFileSync(new URL("../v8/telling.js", import.meta.url), "utf8");
/** Of a thread's memory, for what is young: more makes short-lived objects cheaper. */
const YOUNG_SHARE = 0.25;
const MOST_YOUNG_MB = 32;

export function fresh(memoryMb) {
  return new Worker(THREAD, {
    workerData: { telling: TELLING },
    stdin: false,
    trackUnmanagedFds: true,
    resourceLimits: {
      maxOldGenerationSizeMb: memoryMb,
      maxYoungGenerationSizeMb: Math.min(MOST_YOUNG_MB, Math.ceil(memoryMb * YOUNG_SHARE)),
    },
  });
}

/** Frees a thread that was never used. */
export function discard(thread) {
  void thread.terminate();
}
