import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  checkModel,
  decodeModel,
  encodeModel,
  splitModel,
  tidyModel,
  type KnownTensors,
  type ModelPart,
} from "@fieldloop/runtime";
import { feedsFor, inferTensors, readModelFile, withTrial, type TrialProcess } from "@fieldloop/runtime/node";
import { FieldloopError } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { collectDims, formatBytes } from "./model-options.js";

interface SplitFlags {
  readonly at: string[];
  readonly out: string;
  readonly dim: Record<string, number>;
  readonly verify: boolean;
  readonly json?: boolean;
}

export function registerModelSplit(model: Command): void {
  model
    .command("split")
    .description("Cut an ONNX file into a backbone and the heads behind it, and check that they compose")
    .argument("<file>", "ONNX file")
    .requiredOption(
      "--at <tensor>",
      "tensor at which to cut; repeatable",
      (value: string, before: string[] | undefined) => [...(before ?? []), value],
    )
    .requiredOption("--out <dir>", "folder for backbone.onnx and head-N.onnx")
    .option("--dim <name=size>", "size of a symbolic dimension in the check run", collectDims, {})
    .option("--no-verify", "do not run the parts against the whole")
    .option("--json", "result as JSON")
    .action(action(split));
}

async function split(file: string, flags: SplitFlags): Promise<void> {
  const bytes = await readModelFile(file);
  checkModel(bytes);
  const model = decodeModel(bytes);
  tidyModel(model);
  const { backbone, heads } = splitModel(model, flags.at, await infer(encodeModel(model), flags.dim));
  const parts = [
    { file: "backbone.onnx", part: backbone, bytes: encodeModel(backbone.model) },
    ...heads.map((part, at) => ({ file: `head-${at + 1}.onnx`, part, bytes: encodeModel(part.model) })),
  ];
  const whole = encodeModel(model);
  const [exact, optimized] = flags.verify
    ? await withTrial({}, async (trial) => [
        await compareWithWhole(trial, whole, parts, flags.dim, "disabled"),
        await compareWithWhole(trial, whole, parts, flags.dim, "all"),
      ])
    : [];
  await mkdir(flags.out, { recursive: true });
  for (const { file: name, bytes: content } of parts) await writeFile(join(flags.out, name), content);
  if (flags.json) {
    printJson({
      out: flags.out,
      parts: parts.map(({ file: name, part, bytes: { length } }) => ({
        file: name,
        bytes: length,
        inputs: part.inputs,
        outputs: part.outputs,
      })),
      worstAbsoluteDifference: { withoutOptimization: exact ?? null, optimized: optimized ?? null },
    });
    return;
  }
  printTable([
    ["file", "size", "takes", "gives"],
    ...parts.map(({ file: name, part, bytes: { length } }) => [
      join(flags.out, name),
      formatBytes(length),
      part.inputs.join(", "),
      part.outputs.join(", "),
    ]),
  ]);
  const again = heads.flatMap(({ inputs }) => inputs.filter((name) => backbone.inputs.includes(name)));
  if (again.length > 0) {
    note(
      `a head needs "${again[0]}" besides: what it makes of it is computed in the backbone too; name more tensors with --at to share it`,
    );
  }
  if (exact !== undefined && optimized !== undefined) {
    process.stdout.write(
      `against the whole: ${exact === 0 ? "the same bits" : `differs by ${exact}`} node by node, ${optimized === 0 ? "the same bits" : `at most ${optimized.toPrecision(2)} off`} with the engine's optimizations\n`,
    );
  }
}

/** With the ranks that a run shows, where the model runs on what its inputs say. */
async function infer(bytes: Uint8Array, dims: Readonly<Record<string, number>>): Promise<KnownTensors> {
  const feeds = feedsFor(checkModel(bytes).inputs, dims);
  return inferTensors(bytes, { feeds }).catch((error: unknown) => {
    if (error instanceof FieldloopError && error.code === "model_run_failed") return inferTensors(bytes);
    throw error;
  });
}

/** Largest difference between the whole and the parts one after the other, for a wandering input. */
async function compareWithWhole(
  trial: TrialProcess,
  whole: Uint8Array,
  parts: readonly { part: ModelPart; bytes: Uint8Array }[],
  dims: Readonly<Record<string, number>>,
  graphOptimization: "disabled" | "all",
): Promise<number> {
  const feeds = feedsFor(checkModel(whole).inputs, dims, (at) => Math.sin(at * 0.61));
  const expected = await trial.run(whole, { feeds, graphOptimization });
  const known = { ...feeds };
  for (const { part, bytes } of parts) {
    const own = Object.fromEntries(part.inputs.map((name) => [name, known[name]!]));
    Object.assign(known, (await trial.run(bytes, { feeds: own, graphOptimization })).results);
  }
  let worst = 0;
  for (const [name, tensor] of Object.entries(expected.results)) {
    const actual = known[name];
    if (actual === undefined || actual.data.length !== tensor.data.length) {
      throw new FieldloopError(
        "model_output_invalid",
        `Compare parts with the whole: output "${name}" is missing or has another size`,
      );
    }
    for (let at = 0; at < tensor.data.length; at++) {
      if (Object.is(actual.data[at], tensor.data[at])) continue;
      worst = Math.max(worst, Math.abs(Number(actual.data[at]) - Number(tensor.data[at])));
    }
  }
  return worst;
}
