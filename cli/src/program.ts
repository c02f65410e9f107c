import type { Command } from "commander";
import { runCommandLine } from "./run.js";

type Register = (program: Command) => void;

/** In the order of the help text. Each is loaded when it is wanted: an agent on a device pays for nothing that it does not run. */
const COMMANDS: Readonly<Record<string, () => Promise<Register>>> = {
  demo: async () => (await import("./commands/demo.js")).registerDemoCommand,
  server: async () => (await import("./commands/server.js")).registerServerCommand,
  agent: async () => (await import("./commands/agent.js")).registerAgentCommand,
  model: async () => (await import("./commands/model.js")).registerModelCommand,
  pipeline: async () => (await import("./commands/pipeline.js")).registerPipelineCommand,
  device: async () => (await import("./commands/device.js")).registerDeviceCommand,
  group: async () => (await import("./commands/group.js")).registerGroupCommand,
  rollout: async () => (await import("./commands/rollout.js")).registerRolloutCommand,
  webhook: async () => (await import("./commands/webhook.js")).registerWebhookCommand,
  token: async () => (await import("./commands/token.js")).registerTokenCommand,
  sample: async () => (await import("./commands/sample.js")).registerSampleCommand,
  dataset: async () => (await import("./commands/dataset.js")).registerDatasetCommand,
  keys: async () => (await import("./commands/keys.js")).registerKeysCommand,
  train: async () => (await import("./commands/train.js")).registerTrainCommand,
  evaluate: async () => (await import("./commands/evaluate.js")).registerEvaluateCommand,
  "tuf-client": async () => (await import("./commands/tuf-client.js")).registerTufClientCommand,
  tap: async () => (await import("./commands/tap.js")).registerTapCommand,
};

/** Adds the one command that is named, or, where `name` is none of them, all. */
export async function registerCommands(program: Command, name?: string): Promise<void> {
  const wanted = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  for (const load of wanted ? [wanted] : Object.values(COMMANDS)) (await load())(program);
}

export function main(argv: readonly string[]): Promise<void> {
  return runCommandLine(argv, (program) => registerCommands(program, argv[2]));
}
