// A Node process that turns source, TypeScript or not, and the packages it imports into one ES module.
// It lives as long as its worker has something to build: a build takes milliseconds, a new process a tenth of a second.
//
// in:  {type: "build", id, platform, source, loader, folder, dependencies}   what a code node runs; folder may be null
//      {type: "build", id, platform, entry, folder, dependencies}            what a hub package runs
// out: {type: "ready"}   {type: "built", id, code, map, problems: [{message, line, column, file, is_syntax}]}
import { realpathSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { isBuiltin } from "node:module";
import path from "node:path";
import esbuild from "esbuild";
import { open } from "../../sandboxes/v8/wire.mjs";

/** The namespace of source that has no file; source maps name it so. */
const CODE = "flo";
/** What V8 in this Node can't run as it is, esbuild rewrites. */
const TARGET = `node${process.versions.node}`;
/** How TypeScript is read: as its newest self, whatever tsconfig.json lies about. */
const TSCONFIG = { compilerOptions: { target: "ESNext", useDefineForClassFields: true } };
/** Mistakes named in one answer. */
const MOST_PROBLEMS = 10;

const send = open(async (order) => {
  try {
    // esbuild names files by their real paths, and the fence compares.
    if (order.folder !== null) order.folder = realpathSync(order.folder);
    const { outputFiles } = await esbuild.build(options(order));
    const [map, code] = outputFiles.toSorted((a, b) => b.path.length - a.path.length).map((file) => file.text);
    send({ type: "built", id: order.id, code, map, problems: [] });
  } catch (failure) {
    const problems = (failure.errors ?? [{ text: String(failure), location: null }]).slice(0, MOST_PROBLEMS);
    send({ type: "built", id: order.id, problems: problems.map((problem) => worded(problem, order)) });
  }
});

/** Where it will run: in plain V8, or in Node. */
const PLATFORMS = {
  // `browser` fields of packages swap what only Node has for what every engine has.
  v8: { platform: "browser" },
  // Packages that are CommonJS require Node's own modules at run time.
  node: {
    platform: "node",
    banner: { js: 'import{createRequire as __flo_require}from"node:module";const require=__flo_require("file:///work/");' },
  },
};

function options(order) {
  const hasPackages = order.folder !== null;
  return {
    ...PLATFORMS[order.platform],
    entryPoints: ["code"],
    plugins: [codePlugin(order), fencePlugin(order.folder)],
    bundle: true,
    write: false,
    format: "esm",
    target: TARGET,
    absWorkingDir: order.folder ?? "/",
    outfile: "flo-bundle.js",
    sourcemap: "external",
    sourcesContent: false,
    charset: "utf8",
    legalComments: "none",
    logLevel: "silent",
    tsconfigRaw: TSCONFIG,
    define: hasPackages ? { "process.env.NODE_ENV": '"production"', global: "globalThis" } : {},
    minifyWhitespace: hasPackages,
  };
}

/** Gives the source that came with the order, and says what it may import. */
function codePlugin({ source, loader, entry, folder, dependencies, platform }) {
  const contents = source ?? `import node from ${JSON.stringify(entry)};\nexport default ({ inputs, config }) => node(inputs, config);`;
  return {
    name: "flo-code",
    setup(build) {
      build.onResolve({ filter: /^code$/ }, (args) => (args.kind === "entry-point" ? { path: "code", namespace: CODE } : undefined));
      // Without a folder of its own, a comment in it that names a source map makes esbuild read no file.
      build.onLoad({ filter: /.*/, namespace: CODE }, () => ({ contents, loader: loader ?? "js" }));
      build.onResolve({ filter: /.*/, namespace: CODE }, (args) => {
        if (args.pluginData === "allowed") return undefined;
        if (platform === "node" && isBuiltin(args.path)) return { path: args.path, external: true };
        const mistake = args.path === entry ? undefined : refusal(args.path, dependencies);
        if (mistake !== undefined) return { errors: [{ text: mistake }] };
        return build.resolve(args.path, { kind: args.kind, importer: args.importer, resolveDir: folder, pluginData: "allowed" });
      });
    },
  };
}

function refusal(wanted, dependencies) {
  const name = packageOf(wanted);
  if (dependencies.includes(name)) return undefined;
  if (isBuiltin(wanted)) return `Cannot import "${wanted}": it is part of Node, and code runs in plain V8`;
  if (!/^(@[\w.~-]+\/)?[\w~-][\w.~-]*$/.test(name)) {
    return `Cannot import "${wanted}": a code node is one module; it may import npm packages only`;
  }
  return `Cannot import "${wanted}": add "dependencies": {"${name}": "<version>"} to the node's config`;
}

function packageOf(specifier) {
  return specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
}

/**
 * Lets no package read files outside the folder into which it was installed: neither by an import, nor by a comment
 * that names a source map, which esbuild would open wherever it is.
 */
function fencePlugin(folder) {
  return {
    name: "flo-fence",
    setup(build) {
      build.onLoad({ filter: /.*/, namespace: "file" }, async (args) => {
        if (folder === null || !args.path.startsWith(`${folder}${path.sep}`)) {
          return { errors: [{ text: "A package may not import files from outside its folder" }] };
        }
        const contents = await readFile(args.path, "utf8");
        return { contents: contents.replace(/([#@]\s*source)(MappingURL=)/g, "$1-$2"), loader: "default" };
      });
    },
  };
}

/** Says what is wrong in our words: where, counted in characters from 1, and in whose file. */
function worded({ text, location, pluginName }, order) {
  const file = location?.file === `${CODE}:code` ? null : (location?.file ?? null);
  const place = location && { line: location.line, column: characters(location) + 1 };
  const missing = unresolved(text, file);
  return { message: missing ?? text, line: null, column: null, ...place, file, is_syntax: !missing && !pluginName };
}

function characters({ lineText, column }) {
  return Buffer.from(lineText).subarray(0, column).toString().length;
}

function unresolved(text, file) {
  const wanted = /^Could not resolve "([^"]+)"/.exec(text)?.[1];
  if (wanted === undefined) return undefined;
  const importer = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(file ?? "")?.[1];
  const who = importer === undefined ? "The code" : `The package "${importer}"`;
  if (isBuiltin(wanted)) return `${who} needs "${wanted}", which is part of Node; code runs in plain V8`;
  return `${who} imports "${wanted}", which is not there`;
}

send({ type: "ready" });
