// Runs once in every fresh isolate, before any user code. Answers one function, `host`, through which alone the host
// speaks to the isolate.
//
// Everything that is needed later is captured here, as the user may change any global: hence `apply` and `bind`
// instead of methods, loops by index instead of iterators, and objects without a prototype.
// A function in parentheses is compiled with the script and so comes out of the code cache ready to run; the others
// are compiled when first called.
(function bootstrap(log, wakeAfter) {
  "use strict";
  /** What one run may log and arm. Texts are measured in UTF-16 units. */
  const MOST_LINES = 1_000;
  const MOST_CHARACTERS = 262_144;
  const LONGEST_LINE = 8_192;
  const LONGEST_ERROR = 8_192;
  const MOST_TIMERS = 1_000;

  const { parse, stringify } = JSON;
  const { apply, ownKeys, defineProperty } = Reflect;
  const { slice, split } = String.prototype;
  const { isError } = Error;
  const { then } = Promise.prototype;
  const { now } = Date;
  const [TextOf, NumberOf, ErrorOf, PromiseOf] = [String, Number, Error, Promise];
  const settled = PromiseOf.resolve();

  const define = ((name, value) => {
    defineProperty(globalThis, name, { __proto__: null, value, writable: true, configurable: true });
  });

  // Shared memory could block a thread for good, and WebAssembly memory escapes the isolate's memory limit.
  delete globalThis.SharedArrayBuffer;
  delete globalThis.Atomics;
  delete globalThis.WebAssembly;

  // ---- console ----------------------------------------------------------------------------------------------
  const show = (value) => {
    try {
      if (typeof value === "string") return value;
      if (typeof value === "bigint") return `${value}n`;
      if (typeof value === "function") return `[function ${value.name || "anonymous"}]`;
      if (isError(value)) return TextOf(value.stack || value);
      if (typeof value === "object" && value !== null) return stringify(value) ?? TextOf(value);
      return TextOf(value);
    } catch (problem) {
      return `[not printable: ${isError(problem) ? firstLine(problem) : "it throws"}]`;
    }
  };

  let lines = 0;
  let characters = 0;
  const print = (level, values) => {
    if (lines > MOST_LINES) return;
    let text = "";
    for (let i = 0; i < values.length; i++) {
      text += (i > 0 ? " " : "") + show(values[i]);
      if (text.length > LONGEST_LINE) {
        text = `${apply(slice, text, [0, LONGEST_LINE])}... (${text.length - LONGEST_LINE} more characters)`;
        break;
      }
    }
    lines += 1;
    characters += text.length;
    if (lines <= MOST_LINES && characters <= MOST_CHARACTERS) return void log(level, text);
    lines = MOST_LINES + 1;
    log("warning", `This code logged more than ${MOST_LINES} lines or ${MOST_CHARACTERS} characters: the rest is dropped`);
  };
  define("console", {
    log: (...values) => print("info", values),
    info: (...values) => print("info", values),
    warn: (...values) => print("warning", values),
    error: (...values) => print("error", values),
    debug: (...values) => print("debug", values),
    trace: (...values) => print("debug", values),
  });

  // ---- timers -----------------------------------------------------------------------------------------------
  // All timers are kept here. The host keeps one of its own, for the next one due, so that no number of timers here
  // costs much there.
  const timers = { __proto__: null };
  let timersArmed = 0;
  let lastTimer = 0;
  let wakesAt = Infinity;
  let turn;
  /** The time at which this turn of user code first asked, so that timers armed together fire in order of delay. */
  const turnTime = () => {
    if (turn === undefined) {
      turn = now();
      apply(then, settled, [() => (turn = undefined)]);
    }
    return turn;
  };
  const arm = (callback, delay, values, repeats) => {
    if (typeof callback !== "function") throw new ErrorOf(`A timer needs a function, not ${describe(callback)}`);
    if (timersArmed >= MOST_TIMERS) throw new ErrorOf(`At most ${MOST_TIMERS} timers may be armed at once`);
    const wait = NumberOf(delay) > 1 ? NumberOf(delay) : 1;
    const id = ++lastTimer;
    timers[id] = { __proto__: null, callback, values, wait, repeats, due: turnTime() + wait };
    timersArmed += 1;
    wakeBy(timers[id].due);
    return id;
  };
  const disarm = (id) => {
    if (typeof id !== "number" || timers[id] === undefined) return;
    delete timers[id];
    timersArmed -= 1;
  };
  const wakeBy = (due) => {
    if (due >= wakesAt) return;
    wakesAt = due;
    const wait = due - now();
    wakeAfter(wait > 1 ? wait : 1);
  };
  const nextTimer = () => {
    let next;
    for (const id in timers) if (next === undefined || timers[id].due < timers[next].due) next = id;
    return next;
  };
  /** Fires the timers that are due, with a turn for promises after each. */
  const wake = async () => {
    wakesAt = Infinity;
    let id = nextTimer();
    for (; id !== undefined && timers[id].due <= now(); id = nextTimer()) {
      const { callback, values, wait, repeats } = timers[id];
      if (repeats) timers[id].due = now() + wait;
      else disarm(+id);
      apply(callback, undefined, values);
      await settled;
    }
    if (id !== undefined) wakeBy(timers[id].due);
  };
  define("setTimeout", (callback, delay, ...values) => arm(callback, delay, values, false));
  define("setInterval", (callback, delay, ...values) => arm(callback, delay, values, true));
  define("clearTimeout", disarm);
  define("clearInterval", disarm);
  define("queueMicrotask", (callback) => void apply(then, settled, [() => callback()]));

  // ---- the user's function ----------------------------------------------------------------------------------
  let exported;
  let isModule = false;
  let begun = () => {};

  // Called by the entry module once the user's module has been evaluated, top-level awaits included. A user who calls
  // it instead only names another function of their own.
  defineProperty(globalThis, "__flo_begin", {
    __proto__: null,
    value: ((namespace) => {
      if (exported !== undefined) return;
      exported = namespace;
      isModule = true;
      begun();
    }),
  });

  /** Makes the globals that CommonJS code expects. */
  const prepareCommon = () => {
    const common = { exports: {} };
    define("module", common);
    define("exports", common.exports);
    define("require", (name) => {
      throw new ErrorOf(`Cannot load ${stringify(TextOf(name))}: npm packages must stand in the node's "dependencies", and Node modules are not available`);
    });
    return common;
  };
  let common;

  /** Finds the function to call; throws a text when there is none. */
  const choose = (() => {
    const found = isModule ? exported.default : exported;
    if (typeof found === "function") return found;
    if (!isModule && typeof found?.default === "function") return found.default;
    throw explainMissing(found);
  });

  const explainMissing = (found) => {
    const hint = "write `export default (inputs) => ...` or `module.exports = (inputs) => ...`";
    const offered = isModule ? exported : found;
    const names = typeof offered === "object" && offered !== null ? ownKeys(offered) : [];
    if (isModule ? found !== undefined : typeof offered !== "object") {
      return `The default export is ${describe(found)}, not a function: ${hint}`;
    }
    let others = "";
    for (let i = 0; i < names.length; i++) if (typeof names[i] === "string") others += `${others && ", "}${names[i]}`;
    return `The code has no default export${others && `; it exports ${others}`}: ${hint}`;
  };

  const describe = (value) => {
    if (value === null || value === undefined) return `${value}`;
    return typeof value === "object" ? "an object" : `a ${typeof value}`;
  };
  const firstLine = (problem) => apply(split, TextOf(problem.message), ["\n", 1])[0];

  // An answer is one string: "=" and the result as JSON, or "!" and what went wrong as JSON.
  const fail = (kind, message, stack = "") => {
    const cut = (text) => apply(slice, text, [0, LONGEST_ERROR]);
    return `!${stringify({ __proto__: null, kind, message: cut(message), stack: cut(stack) })}`;
  };

  /** Puts what user code threw into words, whatever it did to its error. */
  const explain = (thrown) => {
    try {
      if (!isError(thrown)) {
        const what = typeof thrown === "string" ? stringify(thrown) : describe(thrown);
        return fail("user_error", `The code threw ${what}, which is not an Error`);
      }
      const { stack } = thrown;
      return fail("user_error", `${thrown.name}: ${thrown.message}`, typeof stack === "string" ? stack : "");
    } catch {
      return fail("user_error", "The code threw an error that can't be read");
    }
  };

  const write = ((value, most) => {
    if (typeof value === "function" || typeof value === "symbol") {
      return fail("user_error", `The code returned ${describe(value)}, which JSON can't carry`);
    }
    let text;
    try {
      text = stringify(value) ?? "null";
    } catch (problem) {
      if (!isError(problem)) return fail("user_error", "The code returned something whose toJSON throws");
      if (problem.message === "Invalid string length") return fail("output_exceeded", "");
      return fail("user_error", `The code returned something that JSON can't carry: ${firstLine(problem)}`);
    }
    return text.length > most ? fail("output_exceeded", `${text.length}`) : `=${text}`;
  });

  /** Calls the user's function, once its module is there, and answers a promise of the answer. */
  const run = (async (inputs, most) => {
    try {
      if (common !== undefined) exported = common.exports ?? null;
      if (exported === undefined) await new PromiseOf((resolve) => (begun = resolve));
      let call;
      try {
        call = choose();
      } catch (problem) {
        return typeof problem === "string" ? fail("user_error", problem) : explain(problem);
      }
      return write(await call(parse(inputs)), most);
    } catch (problem) {
      return explain(problem);
    }
  });

  return ((order, first, second) => {
    if (order === "run") return run(first, second);
    if (order === "wake") return void wake();
    common = prepareCommon();
    return undefined;
  });
});
