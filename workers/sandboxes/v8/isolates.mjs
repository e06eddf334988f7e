// Fresh isolates, and a small stock of them made ahead of time, per memory limit.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const ivm = createRequire(import.meta.url)("isolated-vm");
const BOOTSTRAP = readFileSync(new URL("bootstrap.js", import.meta.url), "utf8");

// isolated-vm refuses less.
const SMALLEST_MB = 8;
// How many different memory limits the stock serves; the one asked for longest ago is dropped.
const SIZES_KEPT = 4;

/** Makes an isolate that has run the bootstrap and waits for a job. */
export async function fresh(memoryMb, limits) {
  const cell = { isolate: undefined, context: undefined, host: undefined, job: undefined };
  cell.isolate = new ivm.Isolate({
    memoryLimit: Math.max(memoryMb, SMALLEST_MB),
    onCatastrophicError: (message) => cell.job?.catastrophe(message),
  });
  cell.context = await cell.isolate.createContext();
  const log = new ivm.Callback((level, text) => cell.job?.log(level, text), { ignored: true });
  const startTimer = new ivm.Callback((id, delay) => cell.job?.startTimer(id, delay));
  const stopTimer = new ivm.Callback((id) => cell.job?.stopTimer(id));
  cell.host = await cell.context.evalClosure(
    BOOTSTRAP,
    [log, startTimer, stopTimer, new ivm.ExternalCopy(limits).copyInto({ release: true })],
    { filename: "flo:bootstrap", result: { reference: true } },
  );
  return cell;
}

export class Stock {
  #shelves = new Map();
  #depth;
  #limits;
  #filling = false;

  constructor({ depth, limits }) {
    this.#depth = depth;
    this.#limits = limits;
  }

  /** Takes a ready isolate, or makes one when the shelf is empty. */
  async take(memoryMb) {
    const shelf = this.#shelf(memoryMb);
    return shelf.pop() ?? (await fresh(memoryMb, this.#limits));
  }

  #shelf(memoryMb) {
    const shelf = this.#shelves.get(memoryMb) ?? [];
    this.#shelves.delete(memoryMb);
    this.#shelves.set(memoryMb, shelf);
    if (this.#shelves.size > SIZES_KEPT) {
      const [oldest, cells] = this.#shelves.entries().next().value;
      this.#shelves.delete(oldest);
      for (const cell of cells) cell.isolate.dispose();
    }
    return shelf;
  }

  /** Fills the shelves, one isolate per turn, for as long as `isIdle()` holds. */
  async refill(isIdle) {
    if (this.#filling) return;
    this.#filling = true;
    try {
      for (let short = this.#short(); short !== undefined && isIdle(); short = this.#short()) {
        const cell = await fresh(short, this.#limits);
        const shelf = this.#shelves.get(short);
        if (shelf === undefined) cell.isolate.dispose();
        else shelf.push(cell);
      }
    } finally {
      this.#filling = false;
    }
  }

  warm(memoryMb) {
    this.#shelf(memoryMb);
  }

  #short() {
    for (const [memoryMb, shelf] of [...this.#shelves].reverse()) if (shelf.length < this.#depth) return memoryMb;
    return undefined;
  }
}
