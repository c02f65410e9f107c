import { Command, CommanderError } from "commander";
import { EXIT, reportError } from "./output.js";

type Register = (program: Command) => void;

/** In the order of the help text. Each is loaded when it is wanted: an agent on a device pays for nothing that it does not run. */
const COMMANDS: Readonly<Record<string, () => Promise<Register>>> = {
  demo: async () => (await import("./commands/demo.js")).registerDemoCommand,
  server: async () => (await import("./commands/server.js")).registerServerCommand,
  agent: async () => (await import("./commands/agent.js")).registerAgentCommand,
  model: async () => (await import("./commands/model.js")).registerModelCommand,
  device: async () => (await import("./commands/device.js")).registerDeviceCommand,
  rollout: async () => (await import("./commands/rollout.js")).registerRolloutCommand,
  sample: async () => (await import("./commands/sample.js")).registerSampleCommand,
  dataset: async () => (await import("./commands/dataset.js")).registerDatasetCommand,
  train: async () => (await import("./commands/train.js")).registerTrainCommand,
  evaluate: async () => (await import("./commands/evaluate.js")).registerEvaluateCommand,
  tap: async () => (await import("./commands/tap.js")).registerTapCommand,
};

/** The command line: with the one command that is named, or, where `name` is none of them, with all. */
export async function createProgram(name?: string): Promise<Command> {
  const program = new Command("fieldloop")
    .description(
      "See how models fail in the field, fix them, ship them back: devices, fleet server and models in one command",
    )
    .version("0.1.0")
    .showHelpAfterError("(add --help for the options)")
    .exitOverride();
  const wanted = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  for (const load of wanted ? [wanted] : Object.values(COMMANDS)) (await load())(program);
  return program;
}

/** Runs one command line; sets `process.exitCode` instead of exiting, so that streams drain and native sessions are released. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    const program = await createProgram(argv[2]);
    await program.parseAsync([...argv]);
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    else process.exitCode = reportError(error);
  }
}
