// One order from arrival to answer.

/** setTimeout's largest delay, in milliseconds. */
const LONGEST_DELAY = 2 ** 31 - 1;
/** How often memory is looked at that V8's own limits leave out: buffers above all. */
const WATCH_MS = 50;
const MB = 1_000_000;
/** How long a thread is given to reap what it started: a process that nobody reaps stays in the table of processes. */
const REAP_MS = 100;

export class Job {
  #order;
  #send;
  #thread;
  #deadline;
  #watch;
  #children = new Set();
  #over = false;
  #answer;
  #settle;

  constructor(order, thread, send) {
    this.#order = order;
    this.#send = send;
    this.#thread = thread;
  }

  /** Runs the order; sends exactly one `done`, after its thread and what it started have ended. */
  async run() {
    const settled = new Promise((resolve) => (this.#settle = resolve));
    const ended = new Promise((resolve) => this.#thread.once("exit", resolve));
    this.#thread.on("message", (message) => this.#hear(message));
    this.#thread.on("error", (problem) => this.#answerOnce(explain(problem)));
    this.#deadline = setTimeout(() => this.#expire(), Math.min(this.#order.timeout_ms, LONGEST_DELAY));
    this.#watch = setInterval(() => this.#look(), WATCH_MS);
    void ended.then((code) => this.#answerOnce(left(code)));
    this.#thread.postMessage(this.#order);
    await settled;
    this.dispose();
    await ended;
    this.#send({ type: "done", id: this.#order.id, ...this.#answer });
  }

  /** Ends every process that the thread started, and the thread. */
  dispose() {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#deadline);
    clearInterval(this.#watch);
    this.#answerOnce({ kind: "stopped" });
    this.#children.forEach(kill);
    if (this.#children.size === 0) void this.#thread.terminate();
    else setTimeout(() => this.#thread.terminate(), REAP_MS);
  }

  #hear([type, first, second]) {
    if (type === "child") this.#started(first);
    if (type === "gone") this.#reaped(first);
    if (this.#answer !== undefined) return;
    if (type === "log") this.#send({ type: "log", id: this.#order.id, level: first, text: second });
    if (type === "answer") this.#answerOnce(this.#read(first));
  }

  #started(pid) {
    this.#children.add(pid);
    if (this.#over) kill(pid);
  }

  #reaped(pid) {
    this.#children.delete(pid);
    if (this.#over && this.#children.size === 0) void this.#thread.terminate();
  }

  #read(text) {
    if (text[0] === "!") return JSON.parse(text.slice(1));
    const bytes = Buffer.byteLength(text) - 1;
    return bytes > this.#order.max_output_bytes ? { kind: "output_exceeded", message: String(bytes) } : { value: text.slice(1) };
  }

  /** The first answer counts. */
  #answerOnce(answer) {
    this.#answer ??= answer;
    this.#settle();
  }

  /** The deadline passed: says so at once, so that nobody waits for the thread to notice. */
  #expire() {
    this.#send({ type: "late", id: this.#order.id });
    this.dispose();
  }

  async #look() {
    try {
      const { used_heap_size: heap, external_memory: external } = await this.#thread.getHeapStatistics();
      if (heap + external > this.#order.memory_mb * MB * 1.25) this.#answerOnce({ kind: "memory_exceeded" });
    } catch {
      // It has just ended.
    }
  }
}

function explain(problem) {
  if (problem?.code === "ERR_WORKER_OUT_OF_MEMORY") return { kind: "memory_exceeded" };
  return { kind: "user_error", message: `${problem?.name}: ${problem?.message}`, stack: String(problem?.stack) };
}

function left(code) {
  return { kind: "user_error", message: `The code ended its process (exit code ${code}) in place of returning` };
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}
