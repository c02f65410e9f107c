import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { toFieldloopError } from "@fieldloop/protocol";
import { ortNode } from "@fieldloop/runtime/node";
import { shippedNames, trainShipped } from "./index.js";

/** `node models/dist/train.js parts|bearing|all [--out DIR] [--seed N]`: trains and packages the shipped models. */
async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { out: { type: "string" }, seed: { type: "string", default: "1" } },
  });
  const [what = "all"] = positionals;
  const names = what === "all" ? shippedNames : shippedNames.filter((name) => name === what);
  const seed = Number(values.seed);
  if (names.length === 0 || positionals.length > 1 || !Number.isSafeInteger(seed) || seed < 0) {
    console.error(`usage: train.js ${[...shippedNames, "all"].join("|")} [--out DIR] [--seed N]`);
    return 2;
  }
  const outDir = resolve(values.out ?? dirname(dirname(fileURLToPath(import.meta.url))));
  const log = (line: string) => console.log(`${new Date().toISOString().slice(11, 19)} ${line}`);
  for (const name of names) await trainShipped(name, { outDir, seed, backend: ortNode, log });
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  const { code, message } = toFieldloopError(error);
  console.error(`${code}: ${message}`);
  process.exitCode = 1;
}
