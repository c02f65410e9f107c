import type { Command } from "commander";
import { registerModelBench } from "./model-bench.js";
import { registerModelImport } from "./model-import.js";
import { registerModelInspect } from "./model-inspect.js";
import { registerModelRun } from "./model-run.js";
import { registerTrainShipped } from "./model-train-shipped.js";
import { registerModelVerify } from "./model-verify.js";
import { registerPublish } from "./publish.js";

export function registerModelCommand(program: Command): void {
  const model = program
    .command("model")
    .description("Import, inspect, run, measure, verify and publish model packages");
  registerModelImport(model);
  registerModelInspect(model);
  registerModelRun(model);
  registerModelBench(model);
  registerModelVerify(model);
  registerPublish(model);
  registerTrainShipped(model);
}
