// Fresh isolates.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const ivm = createRequire(import.meta.url)("isolated-vm");

const FILENAME = "flo:bootstrap";
const read = (name) => readFileSync(new URL(name, import.meta.url), "utf8");
const BOOTSTRAP = `(() => {
const telling = ${read("telling.js")}
const bootstrap = ${read("bootstrap.js")}
return bootstrap; })()`;
/** The bootstrap's bytecode: halves the time it takes in every isolate after. */
const CACHED = new ivm.Isolate().compileScriptSync(BOOTSTRAP, { filename: FILENAME, produceCachedData: true }).cachedData;

/** Imports the user's module, so that its top-level awaits are over when it is announced to the bootstrap. */
const ENTRY = 'import * as user from "code"; __flo_begin(user);';
/** isolated-vm refuses less. */
const SMALLEST_MB = 8;

/** Makes an isolate that has run the bootstrap and waits for its job. Only our own code runs here, so it may block. */
export function fresh(memoryMb) {
  const cell = { isolate: undefined, context: undefined, host: undefined, entry: undefined, job: undefined };
  cell.isolate = new ivm.Isolate({
    memoryLimit: Math.max(memoryMb, SMALLEST_MB),
    onCatastrophicError: (message) => cell.job?.catastrophe(message),
  });
  return furnish(cell);
}

/** Makes a context in the cell's isolate, and runs the bootstrap there. */
export function furnish(cell) {
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

/** Frees an isolate that was never used. */
export function discard(cell) {
  cell.isolate.dispose();
}
