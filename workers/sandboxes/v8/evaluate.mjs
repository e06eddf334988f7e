// Compiling and evaluating code in an isolate.
import { evaluateInItsForm, importProblem } from "./forms.mjs";

/** How isolated-vm ends the message of an error in compiling. */
const PLACE = / \[(.*):(\d+):(\d+)\]$/s;
/** Source up to this many characters is compiled on the main thread, which saves two changes of thread. */
const SMALL = 16_384;
const NO_PACKAGES = 'npm packages must stand in the node\'s "dependencies", and Node modules are not available';

/** Evaluates the code; answers `{finished?}`, a promise, or `{problem}`. */
export function evaluate(cell, source, filename) {
  return evaluateInItsForm(
    source,
    () => evaluateModule(cell, source, filename),
    () => evaluateCommon(cell, source, filename),
  );
}

async function evaluateModule({ isolate, context, entry }, source, filename) {
  let module;
  try {
    module = source.length <= SMALL ? isolate.compileModuleSync(source, { filename }) : await isolate.compileModule(source, { filename });
  } catch (problem) {
    return { problem: syntaxProblem(problem) };
  }
  const [wanted] = module.dependencySpecifiers;
  if (wanted !== undefined) return { problem: importProblem(wanted, source, NO_PACKAGES) };
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
