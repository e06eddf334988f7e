// Runs once in every fresh isolate, before any user code. Answers one function, `host`, through which alone the host
// speaks to the isolate.
//
// Written with the same care as `telling.js`, whose `telling` is in scope here.
(function bootstrap(log, wakeAfter) {
  "use strict";
  /** What one run may arm. */
  const MOST_TIMERS = 1_000;

  const { parse, stringify } = JSON;
  const { apply, defineProperty } = Reflect;
  const { then } = Promise.prototype;
  const { now } = Date;
  const [TextOf, NumberOf, ErrorOf, PromiseOf] = [String, Number, Error, Promise];
  const { printer, consoleOf, describe, explain, answerOf } = telling();
  const settled = PromiseOf.resolve();

  const define = ((name, value) => {
    defineProperty(globalThis, name, { __proto__: null, value, writable: true, configurable: true });
  });

  // Shared memory could block a thread for good, and WebAssembly memory escapes the isolate's memory limit.
  delete globalThis.SharedArrayBuffer;
  delete globalThis.Atomics;
  delete globalThis.WebAssembly;

  define("console", consoleOf(printer(log)));

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

  /** Calls the user's function, once its module is there, and answers a promise of the answer. */
  const run = (async (inputs, most) => {
    if (common !== undefined) exported = common.exports ?? null;
    if (exported === undefined) await new PromiseOf((resolve) => (begun = resolve));
    try {
      return await answerOf(exported, isModule, parse(inputs), most);
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
