/**
 * Makes what the `fieldloop` command runs, `cli/dist/bundle/`: one file for each process and thread, holding only what that one runs;
 * `agent.js` is the device agent's command, `program.js` is all commands, each loaded when it is wanted. A process starts several times
 * faster than from a thousand modules, and keeps less in memory: without the unused parts of its libraries, loaded once instead of module
 * by module, the agent needs a third less. Native libraries and what is loaded only on demand stay where they are.
 * `node scripts/bundle.mjs [FOLDER]`: another folder, somewhere below this one.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
const made = resolve(process.argv[2] ?? join(root, "cli/dist/bundle"));
/** A process that starts meanwhile finds the build before or the new one, not half of it. */
const out = `${made}.${process.pid}`;
/** Native libraries, and what is large and loaded on demand only: they stay where they are. */
const EXTERNAL = [
  ...["onnxruntime-node", "onnxruntime-web", "sharp", "better-sqlite3"],
  ...["@grpc/grpc-js", "socks", "pg", "@electric-sql/pglite"],
];
/** What a library is loaded for, where that is seldom: it is loaded when one of these is asked for. */
const ON_DEMAND = { socks: ["SocksClient"], pg: ["Pool", "types"] };
/** Modules of the workspaces. */
const OWN = /[\\/](protocol|runtime|models|device-agent|fleet-server|cli)[\\/]dist[\\/](.+)$/;
/** How a module names a file beside it. */
const NEIGHBOUR = /new URL\(("[^"]+"|`[^`]+`), import\.meta\.url\)/g;
/** One that is a process or thread. */
const ENTRY = /^"(\.{1,2}\/[^"]+\.js)"$/;
/** The command itself, which starts what is made here. */
const COMMAND = join(root, "cli/dist/main.js");

/** Source → file name in `out`. Grows while the bundles name more of them. */
const entries = new Map([
  [join(root, "cli/dist/agent-main.js"), "agent.js"],
  [join(root, "cli/dist/program.js"), "program.js"],
]);

const findNeighbours = {
  name: "find-neighbours",
  transform(code, id) {
    if (!OWN.test(id)) return null;
    const changed = code.replace(NEIGHBOUR, (_, path) => {
      const file = resolve(dirname(id), ENTRY.exec(path)?.[1] ?? ".");
      if (!ENTRY.test(path) || file === COMMAND) return `new URL(${path}, ${placeOf(id)})`;
      if (!entries.has(file)) entries.set(file, nameFor(file));
      return `new URL("./${entries.get(file)}", import.meta.url)`;
    });
    return changed === code ? null : { code: changed };
  },
};

/** In code: where a module of the workspaces is, whatever file it is part of now. */
function placeOf(id) {
  const [, workspace, path] = OWN.exec(id);
  const { name } = JSON.parse(readFileSync(join(root, workspace, "package.json"), "utf8"));
  return `new URL(${JSON.stringify(`./${path.replaceAll("\\", "/")}`)}, import.meta.resolve(${JSON.stringify(name)}))`;
}

/** In a module's id: the library that it requires. */
const REQUIRE = "\0require:";
/**
 * Libraries that stay outside are loaded by require(): for an `import` of CommonJS Node compiles a WebAssembly parser that looks for its
 * exports, which costs each thread about 10 MB.
 */
const requireExternals = {
  name: "require-externals",
  resolveId: (id, importer) =>
    EXTERNAL.includes(id) && importer && !importer.startsWith(REQUIRE) ? `${REQUIRE}${id}.cjs` : null,
  load: (id) => (id.startsWith(REQUIRE) ? requireCode(id.slice(REQUIRE.length, -4)) : null),
};

function requireCode(name) {
  const load = `require(${JSON.stringify(name)})`;
  const exported = ON_DEMAND[name];
  if (!exported) return `module.exports = ${load};`;
  return `module.exports = { ${exported.map((key) => `get ${key}() { return ${load}.${key}; }`).join(", ")} };`;
}

for (const [input, fileName] of entries) {
  const bundle = await rolldown({
    input,
    platform: "node",
    external: (id, importer) =>
      EXTERNAL.some((name) => id.startsWith(`${name}/`)) ||
      (EXTERNAL.includes(id) && importer?.startsWith(REQUIRE) === true),
    plugins: [findNeighbours, requireExternals],
    // Our own modules do nothing for others by being loaded: one of which nothing is used stays out.
    treeshake: { moduleSideEffects: [{ test: OWN, sideEffects: false }] },
    // Libraries annotate more than a bundler wants to hear of; what cannot be resolved is an error all the same.
    logLevel: "silent",
  });
  await bundle.write({
    dir: out,
    format: "esm",
    entryFileNames: fileName,
    chunkFileNames: `${basename(fileName, ".js")}-[name]-[hash].js`,
    // A source stays in memory as text, and V8 keeps the names in it: local ones are shortened, those of functions and classes stay
    // for stack traces.
    minify: {
      mangle: { toplevel: false, keepNames: true },
      compress: false,
      codegen: { removeWhitespace: true },
    },
  });
  await bundle.close();
}
for (const name of readdirSync(out)) {
  const path = join(out, name);
  writeFileSync(path, inAscii(readFileSync(path, "utf8")));
}
const sources = [...entries].map(([file, name]) => [relative(root, file), name]);
writeFileSync(join(out, "entries.json"), `${JSON.stringify(Object.fromEntries(sources), null, 2)}\n`);

rmSync(made, { recursive: true, force: true });
renameSync(out, made);

/** V8 keeps a source with one character beyond Latin-1 as two bytes a character: escaped, the same text takes half the memory. */
function inAscii(code) {
  return code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function nameFor(file) {
  const names = [...entries.values()];
  const name = `${basename(dirname(file))}-${basename(file)}`;
  return names.includes(name) ? `${OWN.exec(file)[1]}-${name}` : name;
}
