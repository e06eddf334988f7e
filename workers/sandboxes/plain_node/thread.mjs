// What runs in each thread: one order, in the thread's own globals, with all of Node.
//
// To the host, as arrays: ["log", level, text]   ["child", pid]   ["gone", pid]   ["answer", text] (see telling.js)
import { ChildProcess, spawnSync } from "node:child_process";
import { isBuiltin } from "node:module";
import { StringDecoder } from "node:string_decoder";
import vm from "node:vm";
import { parentPort, workerData } from "node:worker_threads";

import { evaluateInItsForm, importProblem } from "../v8/forms.mjs";

const { printer, consoleOf, explain, answerOf } = vm.runInThisContext(workerData.telling, { filename: "flo:telling" })();
const tell = parentPort.postMessage.bind(parentPort);
const { parse, stringify } = JSON;
const later = setImmediate;
const NO_PACKAGES = 'npm packages must stand in the node\'s "dependencies"';

const print = printer((level, text) => tell(["log", level, text]));
let over = false;
/** Make lines of what was written to the streams without an end of line. */
const ends = [];
const flush = () => ends.forEach((end) => end());

/** Answers, once. */
function finish(answer) {
  if (over) return;
  flush();
  over = true;
  tell(["answer", answer]);
}

Object.assign(console, consoleOf(print));
capture(process.stdout, "info");
capture(process.stderr, "error");
process.on("exit", flush);
process.on("uncaughtException", (problem) => finish(explain(problem)));
process.on("unhandledRejection", (problem) => finish(explain(problem)));
ChildProcess.prototype.spawn = tellingOfIt(ChildProcess.prototype.spawn);
// What is compiled lazily is compiled now, while nobody waits.
await evaluate("export default 1", "warm.js");
parentPort.on("message", run);

async function run({ source, filename, inputs, max_output_bytes: most }) {
  let answer;
  try {
    const { problem, exported, isModule } = await evaluate(source, filename);
    answer = problem === undefined ? await answerOf(exported, isModule, parse(inputs), most) : `!${stringify(problem)}`;
  } catch (problem) {
    answer = explain(problem);
  }
  // A rejection that nobody handles is known only when this turn's promises are through.
  later(finish, answer);
}

function evaluate(source, filename) {
  return evaluateInItsForm(
    source,
    () => evaluateModule(source, filename),
    () => evaluateCommon(source, filename),
  );
}

async function evaluateModule(source, filename) {
  let module;
  try {
    module = new vm.SourceTextModule(source, { identifier: filename, importModuleDynamically: load });
  } catch (problem) {
    return { problem: syntaxProblem(problem, arrowFor(source)) };
  }
  const wanted = module.moduleRequests.map(({ specifier }) => specifier).find((name) => !isBuiltin(name));
  if (wanted !== undefined) return { problem: importProblem(wanted, source, NO_PACKAGES) };
  await module.link(link);
  await module.evaluate();
  return { exported: module.namespace, isModule: true };
}

function evaluateCommon(source, filename) {
  let call;
  try {
    call = vm.compileFunction(source, ["module", "exports", "require"], { filename, importModuleDynamically: load });
  } catch (problem) {
    return { problem: syntaxProblem(problem, problem.stack) };
  }
  const common = { exports: {} };
  call.call(common.exports, common, common.exports, require);
  return { exported: common.exports ?? null, isModule: false };
}

function require(name) {
  const found = process.getBuiltinModule(name);
  if (found === undefined) throw new Error(`Cannot load ${stringify(String(name))}: ${NO_PACKAGES}`);
  return found;
}

async function load(name) {
  if (!isBuiltin(name)) throw new Error(`Cannot import ${stringify(name)}: ${NO_PACKAGES}`);
  return import(name);
}

async function link(name) {
  const found = await import(name);
  const names = Object.keys(found);
  return new vm.SyntheticModule(names, function () {
    for (const each of names) this.setExport(each, found[each]);
  });
}

/** Reads the place off the arrow that Node draws in front of a stack: file:line, the line, and a caret below. */
function syntaxProblem(problem, arrow) {
  if (!(problem instanceof SyntaxError)) throw problem;
  const [, line = "1", before = ""] = /^[^\n]*:(\d+)\n[^\n]*\n([ \t]*)/.exec(arrow) ?? [];
  return {
    kind: "syntax_error",
    message: `${problem.name}: ${problem.message}`,
    line: Number(line),
    column: before.length + 1,
  };
}

/** Of a module's error Node keeps the arrow to itself, but for the one that it dies of: so another Node does. */
function arrowFor(source) {
  const { stderr } = spawnSync(process.execPath, ["--check", "--input-type=module", "-"], { input: source, timeout: 5_000 });
  return String(stderr);
}

/** Makes log lines of what is written to a stream. */
function capture(stream, level) {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  const take = (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) print(level, [line]);
  };
  ends.push(() => {
    if (rest !== "") print(level, [rest]);
    rest = "";
  });
  stream._write = (chunk, encoding, done) => {
    take(typeof chunk === "string" ? chunk : decoder.write(chunk));
    done();
  };
  stream._writev = undefined;
}

/** Has the host know of every process that is started here, so that none outlives the run. */
function tellingOfIt(spawn) {
  return function (...options) {
    const result = spawn.apply(this, options);
    if (this.pid !== undefined) {
      tell(["child", this.pid]);
      this.once("exit", () => tell(["gone", this.pid]));
    }
    return result;
  };
}
