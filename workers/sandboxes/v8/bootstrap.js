// Runs once in every fresh isolate, before any user code, as the body of a function of ($0 log, $1 startTimer,
// $2 stopTimer, $3 limits). Answers one function, `host`, through which alone the host speaks to the isolate.
// Everything it will need later is captured here: after this, the user may change any global.
"use strict";
const [log, startTimer, stopTimer, limits] = [$0, $1, $2, $3];
const { parse, stringify } = JSON;
const { apply, ownKeys, getOwnPropertyDescriptor, defineProperty } = Reflect;
const { create, freeze } = Object;
const [StringOf, NumberOf, ErrorOf, PromiseOf, MapOf] = [String, Number, Error, Promise, Map];
const bind = (method) => (self, ...args) => apply(method, self, args);
const then = bind(Promise.prototype.then);
const resolved = Promise.resolve.bind(Promise);
const [slice, split, join] = [bind(StringOf.prototype.slice), bind(StringOf.prototype.split), bind(Array.prototype.join)];
const [mapGet, mapSet, mapDelete] = [bind(MapOf.prototype.get), bind(MapOf.prototype.set), bind(MapOf.prototype.delete)];
const mapSize = bind(getOwnPropertyDescriptor(MapOf.prototype, "size").get);
const isError = ErrorOf.isError;

const define = (name, value) => defineProperty(globalThis, name, { __proto__: null, value, writable: true, configurable: true });

// Shared memory could block a thread for good, and WebAssembly memory escapes the isolate's memory limit.
for (const name of ["SharedArrayBuffer", "Atomics", "WebAssembly"]) delete globalThis[name];

// ---- console ------------------------------------------------------------------------------------------------
const shorten = (text) =>
  text.length <= limits.lineLength
    ? text
    : `${slice(text, 0, limits.lineLength)}... (${text.length - limits.lineLength} more characters)`;

const show = (value) => {
  try {
    if (typeof value === "string") return value;
    if (typeof value === "bigint") return `${value}n`;
    if (isError(value)) return StringOf(value.stack || value);
    if (typeof value === "function") return `[function ${value.name || "anonymous"}]`;
    if (typeof value === "object" && value !== null) return stringify(value) ?? StringOf(value);
    return StringOf(value);
  } catch (problem) {
    return `[not printable: ${isError(problem) ? firstLine(StringOf(problem.message)) : "it throws"}]`;
  }
};

let [lines, characters] = [0, 0];
const print = (level, values) => {
  if (lines > limits.lines) return;
  let text = "";
  for (let i = 0; i < values.length; i++) text += (i ? " " : "") + show(values[i]);
  text = shorten(text);
  characters += text.length;
  if (++lines > limits.lines || characters > limits.characters) {
    lines = limits.lines + 1;
    log("warning", `This code has logged more than ${limits.lines} lines or ${limits.characters} characters: the rest is dropped.`);
    return;
  }
  log(level, text);
};
define("console", {
  log: (...values) => print("info", values),
  info: (...values) => print("info", values),
  warn: (...values) => print("warning", values),
  error: (...values) => print("error", values),
  debug: (...values) => print("debug", values),
  trace: (...values) => print("debug", values),
});

// ---- timers -------------------------------------------------------------------------------------------------
const timers = new MapOf();
let lastTimer = 0;
const arm = (callback, delay, args, repeat) => {
  if (typeof callback !== "function") throw new TypeError(`A timer needs a function, but was given ${describe(callback)}`);
  if (mapSize(timers) >= limits.timers) throw new RangeError(`At most ${limits.timers} timers may run at once`);
  const id = ++lastTimer;
  const wait = NumberOf(delay) > 0 ? NumberOf(delay) : 0;
  mapSet(timers, id, { __proto__: null, callback, args, wait, repeat });
  startTimer(id, wait);
  return id;
};
const disarm = (id) => {
  if (mapDelete(timers, id)) stopTimer(id);
};
const fire = (id) => {
  const timer = mapGet(timers, id);
  if (timer === undefined) return;
  if (timer.repeat) startTimer(id, timer.wait > 1 ? timer.wait : 1);
  else mapDelete(timers, id);
  apply(timer.callback, undefined, timer.args);
};
define("setTimeout", (callback, delay, ...args) => arm(callback, delay, args, false));
define("setInterval", (callback, delay, ...args) => arm(callback, delay, args, true));
define("clearTimeout", disarm);
define("clearInterval", disarm);
define("queueMicrotask", (callback) => void then(resolved(), () => callback()));

// ---- what the host asks for ---------------------------------------------------------------------------------
const firstLine = (text) => split(text, "\n", 1)[0];
const describe = (value) => (value === null ? "null" : typeof value === "object" ? "an object" : typeof value === "undefined" ? "undefined" : `a ${typeof value}`);

/** Says which function to call: `{call}`, or why there is none: `{problem}`. */
const choose = (exported, isModule) => {
  const found = isModule ? exported.default : exported;
  if (typeof found === "function") return { __proto__: null, call: found };
  if (!isModule && found !== null && typeof found === "object" && typeof found.default === "function") return { __proto__: null, call: found.default };
  const names = found !== null && typeof (isModule ? exported : found) === "object" ? ownKeys(isModule ? exported : found) : [];
  const texts = [];
  for (const name of names) if (typeof name === "string") texts[texts.length] = name;
  const hint = "write `export default (inputs) => ...` or `module.exports = (inputs) => ...`";
  if (isModule ? found === undefined : texts.length > 0 || found === undefined) {
    const others = texts.length > 0 ? `; it exports ${join(texts, ", ")}` : "";
    return { __proto__: null, problem: `The code has no default export${others}: ${hint}` };
  }
  return { __proto__: null, problem: isEmpty(found) ? `The code has no default export: ${hint}` : `The default export is ${describe(found)}, not a function: ${hint}` };
};
const isEmpty = (value) => value !== null && typeof value === "object" && ownKeys(value).length === 0;

const fail = (kind, message, stack) =>
  "!" + stringify({ __proto__: null, kind, message: slice(StringOf(message), 0, limits.errorLength), stack: slice(stack, 0, limits.errorLength) });

/** Puts whatever user code threw into words, whatever it did to its error. */
const explain = (thrown) => {
  try {
    if (!isError(thrown)) return fail("user_error", `The code threw ${typeof thrown === "string" ? stringify(thrown) : describe(thrown)}, not an Error`, "");
    const stack = typeof thrown.stack === "string" ? thrown.stack : "";
    return fail("user_error", `${thrown.name}: ${thrown.message}`, stack);
  } catch {
    return fail("user_error", "The code threw an error that can't be read", "");
  }
};

const write = (value, maximum) => {
  if (value === undefined) return "=null";
  if (typeof value === "function" || typeof value === "symbol") return fail("user_error", `The code returned ${describe(value)}, which JSON can't carry`, "");
  let text;
  try {
    text = stringify(value);
  } catch (problem) {
    if (isError(problem) && problem.message === "Invalid string length") return fail("output_exceeded", "", "");
    return fail("user_error", `The code returned something that JSON can't carry: ${isError(problem) ? firstLine(StringOf(problem.message)) : "its toJSON threw"}`, "");
  }
  if (text === undefined) return "=null";
  return text.length > maximum ? fail("output_exceeded", StringOf(text.length), "") : "=" + text;
};

let begun;
const arrived = new PromiseOf((resolve) => {
  begun = resolve;
});
let exported;
let isModule = false;
// Called by the entry module once the user's module has been evaluated, top-level awaits included. A user who
// calls it instead only chooses another function of their own.
defineProperty(globalThis, "__flo_begin", {
  __proto__: null,
  value: (namespace) => {
    if (exported !== undefined) return;
    exported = namespace;
    isModule = true;
    begun();
  },
});

const call = (inputs, maximum) => {
  const { call, problem } = choose(exported, isModule);
  if (problem !== undefined) return fail("user_error", problem, "");
  const returned = call(parse(inputs));
  return then(resolved(returned), (value) => write(value, maximum));
};

const run = (inputs, maximum) => {
  const outcome = exported === undefined ? then(arrived, () => call(inputs, maximum)) : then(resolved(), () => call(inputs, maximum));
  return then(outcome, undefined, explain);
};

let commonModule;
const commonjs = () => {
  const exports = {};
  commonModule = { exports };
  define("module", commonModule);
  define("exports", exports);
  define("require", (name) => {
    throw new ErrorOf(`Cannot load ${stringify(StringOf(name))}: npm packages and Node modules are not available in this mode`);
  });
};

return function host(order, first, second) {
  if (order === "run") {
    if (commonModule !== undefined) exported = commonModule.exports ?? null;
    return run(first, second);
  }
  if (order === "timer") return fire(first);
  return commonjs();
};
