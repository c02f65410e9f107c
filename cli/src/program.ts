import { Command, CommanderError } from "commander";
import { registerAgentCommand } from "./commands/agent.js";
import { registerDatasetCommand } from "./commands/dataset.js";
import { registerDemoCommand } from "./commands/demo.js";
import { registerDeviceCommand } from "./commands/device.js";
import { registerEvaluateCommand } from "./commands/evaluate.js";
import { registerModelCommand } from "./commands/model.js";
import { registerRolloutCommand } from "./commands/rollout.js";
import { registerSampleCommand } from "./commands/sample.js";
import { registerServerCommand } from "./commands/server.js";
import { registerTapCommand } from "./commands/tap.js";
import { registerTrainCommand } from "./commands/train.js";
import { EXIT } from "./output.js";

/** The whole command line. Built apart from running, so that tests can look at it. */
export function createProgram(): Command {
  const program = new Command("fieldloop")
    .description(
      "See how models fail in the field, fix them, ship them back: devices, fleet server and models in one command",
    )
    .version("0.1.0")
    .showHelpAfterError("(add --help for the options)")
    .exitOverride();
  registerDemoCommand(program);
  registerServerCommand(program);
  registerAgentCommand(program);
  registerModelCommand(program);
  registerDeviceCommand(program);
  registerRolloutCommand(program);
  registerSampleCommand(program);
  registerDatasetCommand(program);
  registerTrainCommand(program);
  registerEvaluateCommand(program);
  registerTapCommand(program);
  return program;
}

/** Runs one command line; sets `process.exitCode` instead of exiting, so that streams drain and native sessions are released. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    await createProgram().parseAsync([...argv]);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
}
