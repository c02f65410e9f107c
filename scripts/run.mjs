/**
 * Entry of every npm script. Does all the set-up itself (install, build), quickly when nothing changed, then runs the command.
 * Plain JavaScript without dependencies: it runs before anything is installed.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** A program that was run ended badly; it has said why itself. */
class CommandFailed extends Error {
  constructor(code) {
    super(`exit code ${code}`);
    this.code = code;
  }
}

const root = fileURLToPath(new URL("..", import.meta.url));
const [command = "help", ...args] = process.argv.slice(2);

const COMMANDS = {
  build: async () => {},
  demo: () => run("node", ["cli/dist/main.js", "demo", ...args]),
  test: () => run("node", ["node_modules/vitest/vitest.mjs", "run", ...args]),
  fuzz: () => run("node", ["test/dist/fuzz.js", ...args]),
  // Paths are from where the person stands, not from here: `npm --prefix fieldloop run fieldloop -- …`.
  fieldloop: () =>
    run("node", [join(root, "cli/dist/main.js"), ...args], { cwd: process.env.INIT_CWD ?? root }),
  bench: () => run("node", ["test/dist/bench/main.js", ...args]),
  docs: () => run("node", ["scripts/docs.mjs"]),
  check: async () => {
    await run("node_modules/.bin/oxlint", ["--type-aware", "--deny-warnings"]);
    await run("node_modules/.bin/biome", ["format", "."]);
    await run("node", ["node_modules/vitest/vitest.mjs", "run", "test/dist/repo"]);
  },
};

const work = COMMANDS[command];
if (!work) {
  process.stderr.write(`Usage: npm run ${Object.keys(COMMANDS).join("|")} [-- ARGUMENTS]\n`);
  process.exit(2);
}
try {
  checkNode();
  process.exitCode = (await setUpFor(command, work)) ?? 0;
} catch (error) {
  if (!(error instanceof CommandFailed)) process.stderr.write(`${error.stack ?? error}\n`);
  process.exitCode = error instanceof CommandFailed ? error.code : 1;
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(
      `Fieldloop needs Node 20.19 or newer, this is ${process.versions.node}. Node 24 is recommended.`,
    );
  }
}

/**
 * Sets up and does the work of the command. The SQLite driver, a minute of one processor, is compiled while the other one builds; tests
 * begin then with those that do without it (`test/src/kit/driver.ts`).
 */
async function setUpFor(command, work) {
  const installed = await install();
  const driver = compileDriver(installed);
  const ready = ["test", "check"].includes(command) ? build() : both(driver, build());
  const [, code] = await both(
    driver,
    ready.then(() => work()),
  );
  return code;
}

/** Both results; where one of the two fails, when both are over. */
async function both(...promises) {
  const results = await Promise.allSettled(promises);
  for (const { status, reason } of results) if (status === "rejected") throw reason;
  return results.map(({ value }) => value);
}

/** Where and what to note when all is done; undefined where node_modules was made from this very lock file by this Node. */
async function install() {
  const stampPath = join(root, "node_modules", ".fieldloop-installed");
  const lock = readFileSync(join(root, "package-lock.json"));
  const stamp = `${createHash("sha256").update(lock).digest("hex")} ${process.platform} ${process.arch} ${process.versions.modules}\n`;
  if (existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp) return undefined;
  say("Setting up: installing packages (half a minute or more the first time)");
  await withTicks("still installing", () =>
    run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]),
  );
  return { path: stampPath, stamp };
}

/** The one package whose own script is wanted after an installation (`allowScripts` in package.json). */
async function compileDriver(installed) {
  if (installed === undefined) return;
  const mark = join(root, "node_modules", ".fieldloop-compiling");
  writeFileSync(mark, String(process.pid));
  say("Setting up: compiling the SQLite driver (about a minute)");
  try {
    await run("npm", ["rebuild", "better-sqlite3", "--loglevel=error"], {
      stdio: ["ignore", "ignore", "inherit"],
    });
  } finally {
    rmSync(mark, { force: true });
  }
  writeFileSync(installed.path, installed.stamp);
}

/** TypeScript, then what is made of it and the console; each only when its sources changed. */
async function build() {
  const packages = ["protocol", "runtime", "models", "device-agent", "fleet-server", "cli"];
  const configs = ["tsconfig.json", "tsconfig.base.json", "package-lock.json"];
  await buildStep(
    "code",
    [...packages, "test", "fleet-server/console"].map((name) => join(name, "src")).concat(configs),
    "cli/dist/main.js",
    async () => {
      await run("node_modules/.bin/tsc", ["-b"]);
      linkCommand();
    },
  );
  await buildStep(
    "bundle",
    [...packages.map((name) => join(name, "dist/.tsbuildinfo")), "scripts/bundle.mjs"],
    "cli/dist/bundle/program.js",
    () => run("node", ["scripts/bundle.mjs"]),
  );
  const page = "fleet-server/console";
  await buildStep(
    "console",
    [join(page, "src"), join(page, "index.html"), join(page, "vite.config.ts")],
    "fleet-server/dist/console/index.html",
    () => run("node_modules/.bin/vite", ["build", page, "--logLevel", "warn"]),
  );
}

/** `npx fieldloop`: npm ci leaves the link out where its target is not built yet. */
function linkCommand() {
  const target = join(root, "cli/dist/main.js");
  const link = join(root, "node_modules/.bin/fieldloop");
  chmodSync(target, 0o755);
  if (process.platform !== "win32" && !existsSync(link)) {
    rmSync(link, { force: true });
    symlinkSync("../../cli/dist/main.js", link);
  }
}

async function buildStep(name, inputs, product, step) {
  const stampPath = join(root, "node_modules", `.fieldloop-built-${name}`);
  const stamp = fingerprint(inputs);
  if (existsSync(join(root, product)) && existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp)
    return;
  say(`Setting up: building the ${name}`);
  await step();
  writeFileSync(stampPath, stamp);
}

/** Names, sizes and times of all files below: enough to tell a change, and read in milliseconds. */
function fingerprint(paths) {
  const hash = createHash("sha256");
  const visit = (path) => {
    const full = join(root, path);
    if (!existsSync(full)) return;
    const stat = statSync(full);
    if (stat.isDirectory()) for (const name of readdirSync(full).sort()) visit(join(path, name));
    else hash.update(`${path} ${stat.size} ${stat.mtimeMs}\n`);
  };
  paths.forEach(visit);
  return hash.digest("hex");
}

/** Runs a program in the repository root with this terminal; Ctrl-C reaches it directly, so it is only waited for. */
function run(file, parameters, options = {}) {
  return new Promise((resolve, reject) => {
    const program = file === "node" ? process.execPath : file;
    const child = spawn(program, parameters, { cwd: root, stdio: "inherit", ...options });
    const forward = (signal) => child.kill(signal);
    process.on("SIGINT", ignore);
    process.on("SIGTERM", forward);
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      process.off("SIGINT", ignore);
      process.off("SIGTERM", forward);
      if (code === 0) resolve();
      else reject(new CommandFailed(code ?? (signal === "SIGINT" ? 130 : 1)));
    });
  });
}

function ignore() {}

async function withTicks(text, work) {
  const started = Date.now();
  const timer = setInterval(() => say(`  … ${text}, ${Math.round((Date.now() - started) / 1000)} s`), 10_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

function say(text) {
  process.stderr.write(`${text}\n`);
}
