import type { Command } from "commander";
import { registerModelBench } from "./model-bench.js";
import { registerModelConformance } from "./model-conformance.js";
import { registerModelEdit } from "./model-edit.js";
import { registerModelImport } from "./model-import.js";
import { registerModelInspect } from "./model-inspect.js";
import { registerModelProviders } from "./model-providers.js";
import { registerModelQuantize } from "./model-quantize.js";
import { registerModelRun } from "./model-run.js";
import { registerModelServe } from "./model-serve.js";
import { registerModelSplit } from "./model-split.js";
import { registerTrainShipped } from "./model-train-shipped.js";
import { registerModelVerify } from "./model-verify.js";
import { registerPublish } from "./publish.js";

export function registerModelCommand(program: Command): void {
  const model = program
    .command("model")
    .description("Import, inspect, run, quantize, measure, verify and publish model packages");
  registerModelImport(model);
  registerModelInspect(model);
  registerModelEdit(model);
  registerModelSplit(model);
  registerModelConformance(model);
  registerModelRun(model);
  registerModelQuantize(model);
  registerModelBench(model);
  registerModelVerify(model);
  registerModelProviders(model);
  registerModelServe(model);
  registerPublish(model);
  registerTrainShipped(model);
}
