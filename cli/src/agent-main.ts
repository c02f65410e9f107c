import { registerAgentCommand } from "./commands/agent.js";
import { runCommandLine } from "./run.js";

/** Entry of the agent's own bundle (`scripts/bundle.mjs`): the command line with the one command that a device runs. */
export function main(argv: readonly string[]): Promise<void> {
  return runCommandLine(argv, (program) => {
    registerAgentCommand(program);
    return Promise.resolve();
  });
}
