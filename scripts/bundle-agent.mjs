/**
 * Makes the device agent's own build, `cli/dist/agent/`: one file for each process and thread that the agent starts, holding only what
 * that one runs. A device keeps in memory what it loads: without the unused parts of its libraries, loaded once instead of module by
 * module, the agent needs a third less. Native libraries and what is loaded only on demand stay where they are.
 */
import { rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
const out = join(root, "cli/dist/agent");
const EXTERNAL = ["onnxruntime-node", "onnxruntime-web", "sharp", "@grpc/grpc-js", "better-sqlite3"];
/** How a module names the file of a process or thread that it starts. */
const ENTRY = /new URL\("(\.{1,2}\/[^"]+\.js)", import\.meta\.url\)/g;

/** Source → file name in `out`. Grows while the bundles name more of them. */
const entries = new Map([[join(root, "cli/dist/agent-main.js"), "main.js"]]);

const findEntries = {
  name: "find-entries",
  transform(code, id) {
    const changed = code.replace(ENTRY, (_, path) => {
      const file = resolve(dirname(id), path);
      if (!entries.has(file)) entries.set(file, nameFor(file));
      return `new URL("./${entries.get(file)}", import.meta.url)`;
    });
    return changed === code ? null : { code: changed };
  },
};

rmSync(out, { recursive: true, force: true });
for (const [input, fileName] of entries) {
  const bundle = await rolldown({
    input,
    platform: "node",
    external: (id) => EXTERNAL.some((name) => id === name || id.startsWith(`${name}/`)),
    plugins: [findEntries],
    // Libraries annotate more than a bundler wants to hear of; what cannot be resolved is an error all the same.
    logLevel: "silent",
  });
  await bundle.write({
    dir: out,
    format: "esm",
    entryFileNames: fileName,
    chunkFileNames: `${basename(fileName, ".js")}-[name]-[hash].js`,
    minify: { mangle: false, compress: false, codegen: { removeWhitespace: true } },
  });
  await bundle.close();
}

function nameFor(file) {
  const name = `${basename(dirname(file))}-${basename(file)}`;
  if ([...entries.values()].includes(name)) throw new Error(`Two entries of the agent are named ${name}`);
  return name;
}
