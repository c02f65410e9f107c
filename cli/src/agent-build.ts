import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const BUILD = new URL("./agent/main.js", import.meta.url);
/** Written by every compilation of a workspace that is in the build; absent where the packages are installed. */
const COMPILED = ["protocol", "runtime", "device-agent", "cli"].map(
  (workspace) => new URL(`../../${workspace}/dist/.tsbuildinfo`, import.meta.url),
);

/** URL of the agent's own build; undefined where there is none, or the code was compiled again since it was made. */
export function agentBuild(): string | undefined {
  const made = modifiedMs(BUILD);
  if (made === undefined || COMPILED.some((file) => (modifiedMs(file) ?? 0) > made)) return undefined;
  return BUILD.href;
}

function modifiedMs(file: URL): number | undefined {
  return statSync(fileURLToPath(file), { throwIfNoEntry: false })?.mtimeMs;
}
