// One order from arrival to answer. Every await below may be rejected at any moment by `isolate.dispose()`.
import { compile } from "./forms.mjs";

/** setTimeout's largest delay, in milliseconds. */
const LONGEST_DELAY = 2 ** 31 - 1;

export class Job {
  #order;
  #send;
  #cell;
  #timers = new Map();
  #deadline;
  #ended = false;
  #disposed = false;
  #fatal = false;

  constructor(order, send) {
    this.#order = order;
    this.#send = send;
  }

  /** Runs the order in `cell` and sends exactly one `done`, after the isolate has stopped. */
  async run(stock) {
    let answer;
    try {
      this.#cell = await stock.take(this.#order.memory_mb);
      this.#cell.job = this;
      if (this.#ended) answer = { kind: "cancelled" };
      else {
        this.#deadline = setTimeout(() => this.#expire(), Math.min(this.#order.timeout_ms, LONGEST_DELAY));
        answer = await this.#execute();
      }
    } catch (problem) {
      answer = this.#explain(problem);
    }
    if (this.#fatal) return;
    this.#end();
    this.#send({ type: "done", id: this.#order.id, ...answer });
    if (this.#cell !== undefined) setImmediate(() => this.#dispose());
  }

  async #execute() {
    const { host, isolate, context } = this.#cell;
    const { source, filename, inputs, max_output_bytes: maximum } = this.#order;
    const failure = new Promise((_, reject) => (this.reject = reject));
    const evaluated = await compile({ source, filename, host, isolate, context });
    if (evaluated.problem !== undefined) return evaluated.problem;
    evaluated.finished?.catch(this.reject);
    const text = await Promise.race([
      failure,
      host.apply(undefined, ["run", inputs, maximum], { result: { promise: true } }),
    ]);
    if (text[0] === "!") return JSON.parse(text.slice(1));
    const bytes = Buffer.byteLength(text) - 1;
    return bytes > maximum ? { kind: "output_exceeded", message: String(bytes) } : { value: text.slice(1) };
  }

  #explain(problem) {
    if (this.#ended) return { kind: this.#disposed ? "cancelled" : "timed_out" };
    if (this.#cell !== undefined && this.#cell.isolate.isDisposed) return { kind: "memory_exceeded" };
    if (problem instanceof RangeError && problem.message === "Array buffer allocation failed") return { kind: "memory_exceeded" };
    if (problem instanceof Error) return { kind: "user_error", message: `${problem.name}: ${problem.message}`, stack: String(problem.stack) };
    return { kind: "user_error", message: `The code threw ${JSON.stringify(problem) ?? typeof problem}, not an Error` };
  }

  /** The deadline passed: says so at once, so that the worker need not wait for the isolate to stop. */
  #expire() {
    this.#send({ type: "late", id: this.#order.id });
    this.#end();
    this.#dispose();
  }

  cancel() {
    this.#end();
    this.#dispose();
  }

  #end() {
    this.#ended = true;
    clearTimeout(this.#deadline);
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  #dispose() {
    this.#disposed = true;
    if (this.#cell !== undefined && !this.#cell.isolate.isDisposed) this.#cell.isolate.dispose();
  }

  /** V8 has lost the isolate: its thread sleeps for ever, and this process must be replaced. */
  catastrophe(message) {
    this.#fatal = true;
    this.#end();
    this.#send({ type: "fatal", id: this.#order.id, message });
  }

  log(level, text) {
    if (!this.#ended) this.#send({ type: "log", id: this.#order.id, level, text });
  }

  startTimer(id, delay) {
    if (this.#ended || delay > LONGEST_DELAY) return;
    const fire = () => {
      this.#timers.delete(id);
      this.#cell.host.apply(undefined, ["timer", id]).catch(this.reject);
    };
    this.#timers.set(id, setTimeout(fire, delay));
  }

  stopTimer(id) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }
}
