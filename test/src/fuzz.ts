import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { newSeed } from "./kit/random.js";

/**
 * `npm run fuzz`: properties over generated cases, round after round with a new seed, until the time is over or one fails.
 * What it finds becomes a case of its own beside the mend, because `npm test` tries the same cases in every run.
 */
const USAGE = `Usage: npm run fuzz [-- --minutes N] [-- FILE ...]

Tries the properties of all tests, or of those whose path contains FILE, with new cases in each round: until the
time is over (10 minutes) or one fails. What failed is printed with the command that shows it again.
`;
const root = fileURLToPath(new URL("../..", import.meta.url));
const PACKAGES = ["protocol", "runtime", "models", "device-agent", "fleet-server", "cli", "test"];
/** Of one property in one round: far longer than a hundred cases take on a loaded machine. */
const TIMEOUT_MS = 600_000;

process.exitCode = await main();

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { minutes: { type: "string", default: "10" }, help: { type: "boolean", short: "h" } },
    allowPositionals: true,
  });
  const minutes = Number(values.minutes);
  if (values.help || !(minutes > 0)) {
    (values.help ? process.stdout : process.stderr).write(USAGE);
    return values.help ? 0 : 2;
  }
  const files = (await propertyTests()).filter(
    (file) => positionals.length === 0 || positionals.some((part) => file.includes(part)),
  );
  if (files.length === 0) {
    process.stderr.write(`No test with properties has ${positionals.join(" or ")} in its path.\n`);
    return 2;
  }
  const end = performance.now() + minutes * 60_000;
  for (let round = 1; round === 1 || performance.now() < end; round++) {
    const seed = newSeed();
    process.stdout.write(`Round ${round}: ${files.length} files, seed ${seed}\n`);
    const { code, output } = await run(files, seed);
    if (code === 0) continue;
    process.stdout.write(`${output}\nAgain: FIELDLOOP_TEST_SEED=${seed} npm test -- ${files.join(" ")}\n`);
    return 1;
  }
  process.stdout.write("No property failed.\n");
  return 0;
}

/** Compiled test files that use fast-check, from the root. */
async function propertyTests(): Promise<string[]> {
  const found: string[] = [];
  for (const name of PACKAGES) {
    const entries = await readdir(join(root, name, "dist"), { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      const path = join(entry.parentPath, entry.name);
      if (!entry.name.endsWith(".test.js")) continue;
      if ((await readFile(path, "utf8")).includes('from "fast-check"')) found.push(relative(root, path));
    }
  }
  return found.sort();
}

async function run(files: readonly string[], seed: number): Promise<{ code: number; output: string }> {
  const vitest = ["node_modules/vitest/vitest.mjs", "run", `--testTimeout=${TIMEOUT_MS}`, "--reporter=dot"];
  const child = spawn(process.execPath, [...vitest, ...files], {
    cwd: root,
    env: { ...process.env, FIELDLOOP_TEST_SEED: String(seed) },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += String(text)));
  const [code] = (await once(child, "exit")) as [number | null];
  return { code: code ?? 1, output };
}
