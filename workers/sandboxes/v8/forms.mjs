// The two forms that code may have: an ES module (`export default`) or CommonJS (`module.exports`).

const MODULE = /(?:^|[;}\s])(?:export\s*(?:default\b|[{*]|(?:const|let|var|function|async|class)\b)|import\s*["'{*]|import\s+\w+\s*(?:,|\bfrom\b))/;
const COMMON = /\b(?:module\s*\.\s*exports|exports\s*[.[])/;

/** Has the code evaluated in whichever form it has; both ways answer (a promise of) `{problem}` or what they made. */
export async function evaluateInItsForm(source, asModule, asCommon) {
  const [looksModule, looksCommon] = [MODULE.test(source), COMMON.test(source)];
  if (looksCommon && !looksModule) return asCommon();
  const outcome = await asModule();
  if (outcome.problem?.kind !== "syntax_error" || !looksCommon) return outcome;
  // What looked like an export may have stood in a comment or a string.
  const second = await asCommon();
  return second.problem?.kind === "syntax_error" ? outcome : second;
}

/** Tells that the module `wanted` can't be imported, and where that was asked. */
export function importProblem(wanted, source, reason) {
  const start = Math.max(0, source.search(new RegExp(`["']${RegExp.escape(wanted)}["']`)));
  const before = source.slice(0, start).split("\n");
  return {
    kind: "user_error",
    message: `Cannot import ${JSON.stringify(wanted)}: ${reason}`,
    line: before.length,
    column: before.at(-1).length + 1,
  };
}
