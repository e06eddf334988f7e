// One order from arrival to answer.
import { evaluate } from "./evaluate.mjs";

/** setTimeout's largest delay, in milliseconds. */
const LONGEST_DELAY = 2 ** 31 - 1;
/** Bounds that the bootstrap keeps too, in case user code ever gets hold of a callback. */
const MOST_MESSAGES = 2_000;
const LONGEST_MESSAGE = 20_000;

export class Job {
  #order;
  #send;
  #cell;
  #deadline;
  #wake;
  #messages = 0;
  #over = false;
  #lost = false;
  #fail = () => {};

  constructor(order, cell, send) {
    this.#order = order;
    this.#send = send;
    this.#cell = cell;
    cell.job = this;
  }

  /** Runs the order; sends exactly one `done`, after the isolate's thread has stopped working on it. */
  async run() {
    this.#deadline = setTimeout(() => this.#expire(), Math.min(this.#order.timeout_ms, LONGEST_DELAY));
    let answer;
    try {
      answer = await this.#execute();
    } catch (problem) {
      answer = this.#explain(problem);
    }
    if (this.#lost) return;
    this.#end();
    this.#send({ type: "done", id: this.#order.id, ...answer });
  }

  /** Frees the isolate; what runs in it stops. */
  dispose() {
    this.#end();
    if (!this.#lost && !this.#cell.isolate.isDisposed) this.#cell.isolate.dispose();
  }

  async #execute() {
    const { source, filename, inputs, max_output_bytes: most } = this.#order;
    const evaluated = await evaluate(this.#cell, source, filename);
    if (evaluated.problem !== undefined) return evaluated.problem;
    const text = await new Promise((resolve, reject) => {
      this.#fail = reject;
      evaluated.finished?.catch(reject);
      this.#cell.host.apply(undefined, ["run", inputs, most], { result: { promise: true } }).then(resolve, reject);
    });
    if (text[0] === "!") return JSON.parse(text.slice(1));
    const bytes = Buffer.byteLength(text) - 1;
    return bytes > most ? { kind: "output_exceeded", message: String(bytes) } : { value: text.slice(1) };
  }

  #explain(problem) {
    if (this.#over) return { kind: "stopped" };
    if (this.#cell.isolate.isDisposed) return { kind: "memory_exceeded" };
    if (!(problem instanceof Error)) {
      return { kind: "user_error", message: `The code threw ${JSON.stringify(problem) ?? typeof problem}, which is not an Error` };
    }
    return { kind: "user_error", message: `${problem.name}: ${problem.message}`, stack: String(problem.stack) };
  }

  /** The deadline passed: says so at once, so that nobody waits for the thread to notice. */
  #expire() {
    this.#send({ type: "late", id: this.#order.id });
    this.dispose();
  }

  #end() {
    this.#over = true;
    clearTimeout(this.#deadline);
    clearTimeout(this.#wake);
  }

  /** V8 gave the isolate up: its thread sleeps for ever, so this process must be replaced. */
  catastrophe(message) {
    this.#lost = true;
    this.#end();
    this.#send({ type: "fatal", id: this.#order.id, message });
  }

  log(level, text) {
    if (this.#over || ++this.#messages > MOST_MESSAGES) return;
    this.#send({ type: "log", id: this.#order.id, level: String(level), text: String(text).slice(0, LONGEST_MESSAGE) });
  }

  /** Wakes the isolate's timers after so many milliseconds, instead of when was asked before. */
  wakeAfter(delay) {
    clearTimeout(this.#wake);
    if (this.#over || !(delay <= LONGEST_DELAY)) return;
    this.#wake = setTimeout(() => {
      this.#cell.host.apply(undefined, ["wake"]).catch((problem) => this.#fail(problem));
    }, delay);
  }
}
