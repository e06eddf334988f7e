// Fresh isolates, and a small stock of them made ahead of time, per memory limit.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const ivm = createRequire(import.meta.url)("isolated-vm");

const FILENAME = "flo:bootstrap";
const BOOTSTRAP = readFileSync(new URL("bootstrap.js", import.meta.url), "utf8");
/** The bootstrap's bytecode: halves the time it takes in every isolate after. */
const CACHED = new ivm.Isolate().compileScriptSync(BOOTSTRAP, { filename: FILENAME, produceCachedData: true }).cachedData;

/** Imports the user's module, so that its top-level awaits are over when it is announced to the bootstrap. */
const ENTRY = 'import * as user from "code"; __flo_begin(user);';
/** isolated-vm refuses less. */
const SMALLEST_MB = 8;
/** How many different memory limits the stock serves; the one asked for longest ago is dropped. */
const SIZES_KEPT = 4;

/** Makes an isolate that has run the bootstrap and waits for its job. Only our own code runs here, so it may block. */
export function fresh(memoryMb) {
  const cell = { isolate: undefined, context: undefined, host: undefined, entry: undefined, job: undefined };
  cell.isolate = new ivm.Isolate({
    memoryLimit: Math.max(memoryMb, SMALLEST_MB),
    onCatastrophicError: (message) => cell.job?.catastrophe(message),
  });
  cell.context = cell.isolate.createContextSync();
  const bootstrap = cell.isolate
    .compileScriptSync(BOOTSTRAP, { filename: FILENAME, cachedData: CACHED })
    .runSync(cell.context, { reference: true });
  const log = new ivm.Callback((level, text) => cell.job?.log(level, text), { ignored: true });
  const wakeAfter = new ivm.Callback((delay) => cell.job?.wakeAfter(delay));
  cell.host = bootstrap.applySync(undefined, [log, wakeAfter], { result: { reference: true } });
  cell.entry = cell.isolate.compileModuleSync(ENTRY, { filename: "flo:entry" });
  return cell;
}

export class Stock {
  #depth;
  #shelves = new Map();

  constructor(depth) {
    this.#depth = depth;
  }

  /** Takes a ready isolate, or makes one when the shelf is empty. */
  take(memoryMb) {
    return this.keep(memoryMb).pop() ?? fresh(memoryMb);
  }

  /** Has a shelf for this memory limit from now on. */
  keep(memoryMb) {
    const shelf = this.#shelves.get(memoryMb) ?? [];
    this.#shelves.delete(memoryMb);
    this.#shelves.set(memoryMb, shelf);
    if (this.#shelves.size > SIZES_KEPT) {
      const [[oldest, cells]] = this.#shelves;
      this.#shelves.delete(oldest);
      for (const cell of cells) cell.isolate.dispose();
    }
    return shelf;
  }

  /** Puts one more isolate on a shelf; answers whether there was room for it. */
  add() {
    for (const [memoryMb, shelf] of this.#shelves) {
      if (shelf.length < this.#depth) {
        shelf.push(fresh(memoryMb));
        return true;
      }
    }
    return false;
  }
}
