import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PROGRAM = new URL("./bundle/program.js", import.meta.url);
const AGENT = new URL("./bundle/agent.js", import.meta.url);
/** Written by every compilation of a workspace that is in the bundle; absent where the packages are installed. */
const COMPILED = ["protocol", "runtime", "models", "device-agent", "fleet-server", "cli"].map(
  (workspace) => new URL(`../../${workspace}/dist/.tsbuildinfo`, import.meta.url),
);

/**
 * URL of the bundled program (`scripts/bundle.mjs`) that has this command; undefined where there is none, or the code was compiled again
 * since it was made.
 */
export function bundledProgram(command: string | undefined): string | undefined {
  const bundle = command === "agent" ? AGENT : PROGRAM;
  const made = modifiedMs(bundle);
  if (made === undefined || COMPILED.some((file) => (modifiedMs(file) ?? 0) > made)) return undefined;
  return bundle.href;
}

function modifiedMs(file: URL): number | undefined {
  return statSync(fileURLToPath(file), { throwIfNoEntry: false })?.mtimeMs;
}
