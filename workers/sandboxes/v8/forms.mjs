// The two forms that code may have: an ES module (`export default`) or CommonJS (`module.exports`).

const MODULE = /(?:^|[;}\s])(?:export\s*(?:default\b|[{*]|(?:const|let|var|function|async|class)\b)|import\s*["'{*]|import\s+\w+\s*(?:,|\bfrom\b))/;
const COMMON = /\b(?:module\s*\.\s*exports|exports\s*[.[])/;
/** How isolated-vm ends the message of an error in compiling. */
const PLACE = / \[(.*):(\d+):(\d+)\]$/s;
/** Source up to this many characters is compiled on the main thread, which saves two changes of thread. */
const SMALL = 16_384;

/** Compiles and evaluates the code in whichever form it has; answers `{finished?}`, a promise, or `{problem}`. */
export async function evaluate(cell, source, filename) {
  const [looksModule, looksCommon] = [MODULE.test(source), COMMON.test(source)];
  if (looksCommon && !looksModule) return evaluateCommon(cell, source, filename);
  const outcome = await evaluateModule(cell, source, filename);
  if (outcome.problem?.kind !== "syntax_error" || !looksCommon) return outcome;
  // What looked like an export may have stood in a comment or a string.
  const second = await evaluateCommon(cell, source, filename);
  return second.problem?.kind === "syntax_error" ? outcome : second;
}

async function evaluateModule({ isolate, context, entry }, source, filename) {
  let module;
  try {
    module = source.length <= SMALL ? isolate.compileModuleSync(source, { filename }) : await isolate.compileModule(source, { filename });
  } catch (problem) {
    return { problem: syntaxProblem(problem) };
  }
  const [wanted] = module.dependencySpecifiers;
  if (wanted !== undefined) return { problem: importProblem(wanted, source) };
  entry.instantiateSync(context, () => module);
  return { finished: entry.evaluate() };
}

async function evaluateCommon({ host, context }, source, filename) {
  host.applyIgnored(undefined, ["common"]);
  try {
    await context.evalClosure(source, [], { filename });
  } catch (problem) {
    if (!(problem instanceof SyntaxError) || PLACE.exec(problem.message)?.[1] !== filename) throw problem;
    return { problem: syntaxProblem(problem) };
  }
  return {};
}

function syntaxProblem(problem) {
  const place = PLACE.exec(problem.message);
  if (place === null) throw problem;
  return {
    kind: "syntax_error",
    message: `${problem.name}: ${problem.message.slice(0, place.index)}`,
    line: Number(place[2]),
    column: Number(place[3]),
  };
}

function importProblem(wanted, source) {
  const start = Math.max(0, source.search(new RegExp(`["']${RegExp.escape(wanted)}["']`)));
  const before = source.slice(0, start).split("\n");
  return {
    kind: "user_error",
    message: `Cannot import ${JSON.stringify(wanted)}: npm packages must stand in the node's "dependencies", and Node modules are not available`,
    line: before.length,
    column: before.at(-1).length + 1,
  };
}
