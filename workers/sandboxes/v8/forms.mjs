// The two forms code may have: an ES module (`export default`) or CommonJS (`module.exports`).

const MODULE = /(?:^|[;}\s])(?:export\s*(?:default\b|\{|\*|const\b|let\b|var\b|function\b|async\b|class\b)|import\s*(?:["'{*]|\w+\s*(?:,|from\b)))/;
const COMMON = /\b(?:module\s*\.\s*exports|exports\s*(?:\.|\[))/;
const ENTRY = 'import * as user from "code"; __flo_begin(user);';
const DECORATED = / \[(.*):(\d+):(\d+)\]$/s;

/** Compiles and evaluates the code in whichever form it has: `{finished}` or `{problem}`. */
export async function compile(target) {
  const [looksModule, looksCommon] = [MODULE.test(target.source), COMMON.test(target.source)];
  const first = looksCommon && !looksModule ? asCommon : asModule;
  const outcome = await first(target);
  if (outcome.problem?.kind !== "syntax_error" || !(looksModule && looksCommon)) return outcome;
  const second = await asCommon(target);
  return second.problem?.kind === "syntax_error" ? outcome : second;
}

async function asModule({ source, filename, isolate, context }) {
  const entryCompiled = isolate.compileModule(ENTRY, { filename: "flo:entry" });
  let module;
  try {
    module = await isolate.compileModule(source, { filename });
  } catch (problem) {
    return { problem: syntaxProblem(problem, filename) };
  }
  const [wanted] = module.dependencySpecifiers;
  if (wanted !== undefined) return { problem: importProblem(wanted, source) };
  const entry = await entryCompiled;
  await entry.instantiate(context, () => module);
  return { finished: entry.evaluate() };
}

async function asCommon({ source, filename, host, context }) {
  host.applyIgnored(undefined, ["commonjs"]);
  try {
    await context.evalClosure(source, [], { filename });
  } catch (problem) {
    const decorated = problem instanceof SyntaxError && DECORATED.exec(problem.message)?.[1] === filename;
    if (!decorated) throw problem;
    return { problem: syntaxProblem(problem, filename) };
  }
  return {};
}

function syntaxProblem(problem, filename) {
  const at = DECORATED.exec(problem.message);
  if (!(problem instanceof SyntaxError) || at === null) throw problem;
  return {
    kind: "syntax_error",
    message: `SyntaxError: ${problem.message.slice(0, at.index)}`,
    filename,
    line: Number(at[2]),
    column: Number(at[3]),
  };
}

function importProblem(wanted, source) {
  const before = source.slice(0, Math.max(0, source.search(new RegExp(`["']${RegExp.escape(wanted)}["']`)))).split("\n");
  return {
    kind: "user_error",
    message: `Cannot import ${JSON.stringify(wanted)}: npm packages and Node modules are not available in this mode`,
    line: before.length,
    column: before.at(-1).length + 1,
  };
}
