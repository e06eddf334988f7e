// How a run's logs, errors and results are put into words, in whatever kind of place it ran. Runs before any user code.
//
// Everything that is needed later is captured here, as the user may change any global: hence `apply` instead of
// methods, loops by index instead of iterators, and objects without a prototype.
// A function in parentheses is compiled with the script and so comes out of the code cache ready to run; the others
// are compiled when first called.
(function telling() {
  "use strict";
  /** What one run may log. Texts are measured in UTF-16 units. */
  const MOST_LINES = 1_000;
  const MOST_CHARACTERS = 262_144;
  const LONGEST_LINE = 8_192;
  const LONGEST_ERROR = 8_192;

  const { stringify } = JSON;
  const { apply, ownKeys } = Reflect;
  const { slice, split } = String.prototype;
  const { isError } = Error;
  const TextOf = String;

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

  /** Makes `print(level, values)`, which calls `log(level, text)` as often as one run may. */
  const printer = ((log) => {
    let lines = 0;
    let characters = 0;
    return (level, values) => {
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
  });

  /** The methods of `console` that every place has. */
  const consoleOf = ((print) => ({
    log: (...values) => print("info", values),
    info: (...values) => print("info", values),
    warn: (...values) => print("warning", values),
    error: (...values) => print("error", values),
    debug: (...values) => print("debug", values),
    trace: (...values) => print("debug", values),
  }));

  /** Finds the function to call in what a module or CommonJS code exports; throws a text when there is none. */
  const choose = ((exported, isModule) => {
    const found = isModule ? exported.default : exported;
    if (typeof found === "function") return found;
    if (!isModule && typeof found?.default === "function") return found.default;
    throw explainMissing(exported, isModule);
  });

  const explainMissing = (offered, isModule) => {
    const hint = "write `export default (inputs) => ...` or `module.exports = (inputs) => ...`";
    const found = isModule ? offered.default : offered;
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

  /** Calls the function that was exported and answers a promise of the answer. */
  const answerOf = (async (exported, isModule, inputs, most) => {
    try {
      let call;
      try {
        call = choose(exported, isModule);
      } catch (problem) {
        return typeof problem === "string" ? fail("user_error", problem) : explain(problem);
      }
      return write(await call(inputs), most);
    } catch (problem) {
      return explain(problem);
    }
  });

  return { __proto__: null, printer, consoleOf, describe, explain, answerOf };
});
