import { writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import {
  checkModel,
  decodeModel,
  definedNames,
  embeddingCandidate,
  encodeModel,
  exposeTensor,
  fixDims,
  graphOf,
  nameNodes,
  namesWithin,
  opsetVersion,
  renameTensor,
  setBatch,
  stripModel,
  tidyModel,
  upgradeOpset,
  type ModelFacts,
  type ModelProto,
  type Tensor,
} from "@fieldloop/runtime";
import {
  feedsFor,
  inferTensors,
  inlineFromFolder,
  readModelFile,
  tryModel,
  withTrial,
} from "@fieldloop/runtime/node";
import { InvalidArgumentError, type Command } from "commander";
import { action, printJson, printTable } from "../output.js";
import { collectDims, formatBytes, parsePositiveInteger } from "./model-options.js";

interface EditFlags {
  readonly out: string;
  readonly inlineData?: boolean;
  readonly strip?: boolean;
  readonly fold?: boolean;
  readonly opset?: number;
  readonly dim: Record<string, number>;
  readonly batch?: number | "dynamic";
  readonly rename: Record<string, string>;
  readonly expose: string[];
  readonly embedding?: boolean;
  readonly check: boolean;
  readonly json?: boolean;
}

export function registerModelEdit(model: Command): void {
  model
    .command("edit")
    .description("Change an ONNX file: fold, strip, upgrade, fix sizes, rename, expose inner tensors")
    .argument("<file>", "ONNX file")
    .requiredOption("-o, --out <file>", "ONNX file to write")
    .option("--inline-data", "bring weights that lie in other files of the same folder into the model")
    .option(
      "--strip",
      "drop what running it does not need: training leftovers, texts, unread nodes and weights",
    )
    .option(
      "--dim <name=size>",
      "fix a symbolic dimension (TENSOR:AXIS=SIZE where it has no name)",
      collectDims,
      {},
    )
    .option("--batch <n|dynamic>", "first dimension of inputs and outputs", parseBatch)
    .option("--opset <n>", "upgrade to this operator set", parsePositiveInteger)
    .option("--fold", "compute constant parts, merge normalizations into the layers before them")
    .option("--rename <from=to>", "rename a tensor", collectNames, {})
    .option("--expose <tensor>", "make an inner tensor an output; repeatable", collect, [])
    .option("--embedding", 'expose what the last weighted layer reads, under the name "embedding"')
    .option("--no-check", "do not open the result in the engine")
    .option("--json", "result as JSON")
    .action(action(edit));
}

async function edit(file: string, flags: EditFlags): Promise<void> {
  const before = await readModelFile(file);
  const model = decodeModel(before);
  const done: string[] = [];
  if (flags.inlineData) done.push(`inlined ${await inlineFromFolder(model, dirname(file))} tensors`);
  checkModel(encodeModel(model));
  let current = flags.fold || flags.opset !== undefined ? await reshape(model, flags, done) : model;
  if (flags.strip) {
    const report = stripModel(current);
    done.push(
      `stripped ${report.passThroughDropped.length + report.deadNodesDropped} nodes, ${report.initializersDropped} weights, ${report.docStringsDropped + report.metadataDropped} texts`,
    );
  }
  if (Object.keys(flags.dim).length > 0) {
    fixDims(current, flags.dim);
    done.push(
      `fixed ${Object.entries(flags.dim)
        .map(([name, size]) => `${name} to ${size}`)
        .join(", ")}`,
    );
  }
  if (flags.batch !== undefined) {
    const report = setBatch(current, flags.batch);
    done.push(
      `batch ${flags.batch} on ${report.changed.join(", ")}, ${report.reshaped.length} Reshape follow`,
    );
  }
  current = await exposeAsked(current, flags, done);
  for (const [from, to] of Object.entries(flags.rename)) {
    requireRenaming(current, from, to);
    renameTensor(graphOf(current), from, to);
    done.push(`renamed ${from} to ${to}`);
  }
  const bytes = encodeModel(current);
  const facts = checkModel(bytes);
  if (flags.check)
    await tryModel(bytes, flags.batch === undefined ? {} : { feeds: batchFeeds(facts, flags) });
  await writeFile(flags.out, bytes, { flag: "wx" }).catch((cause: NodeJS.ErrnoException) => {
    const code = cause.code === "EEXIST" ? "already_exists" : "storage_failed";
    throw new FieldloopError(code, `Write "${flags.out}": ${cause.message}`, { cause });
  });
  if (flags.json) printJson({ out: flags.out, bytes: bytes.length, done, facts });
  else {
    for (const line of done) process.stdout.write(`${line}\n`);
    printTable([
      ["file", "size", "was", "nodes", "operator set"],
      [
        flags.out,
        formatBytes(bytes.length),
        formatBytes(before.length),
        String(facts.nodeCount),
        String(facts.opsets[""] ?? "-"),
      ],
    ]);
  }
}

/** Renaming what is not there would do nothing; taking a name that is there, also in a body, would make one tensor of two. */
function requireRenaming(model: ModelProto, from: string, to: string): void {
  const graph = graphOf(model);
  if (!definedNames(graph).has(from)) {
    throw new FieldloopError("not_found", `Rename tensor "${from}": the graph has none of that name`);
  }
  if (from !== to && namesWithin(graph).has(to)) {
    throw new FieldloopError(
      "already_exists",
      `Rename tensor "${from}": "${to}" is another tensor of the graph`,
    );
  }
}

/** A new batch size may fail at any node that mixes items of a batch, and only a run shows it. */
function batchFeeds(facts: ModelFacts, flags: EditFlags): Record<string, Tensor> {
  return feedsFor(facts.inputs, { batch: 2, ...flags.dim });
}

/** Upgrade first: folding by the engine keeps the operator set that it is given. */
async function reshape(model: ModelProto, flags: EditFlags, done: string[]): Promise<ModelProto> {
  if (flags.opset !== undefined) {
    const from = opsetVersion(model);
    upgradeOpset(model, flags.opset);
    done.push(`operator set ${from} to ${opsetVersion(model)}`);
  }
  if (!flags.fold) return model;
  tidyModel(model);
  const nodes = graphOf(model).node.length;
  const folded = decodeModel(await withTrial({}, (trial) => trial.fold(encodeModel(model), "basic")));
  tidyModel(folded);
  nameNodes(folded);
  done.push(`folded ${nodes} nodes to ${graphOf(folded).node.length}`);
  return folded;
}

async function exposeAsked(model: ModelProto, flags: EditFlags, done: string[]): Promise<ModelProto> {
  const names = [...flags.expose];
  const embedding = flags.embedding ? embeddingCandidate(model) : undefined;
  if (flags.embedding && embedding === undefined) {
    throw new FieldloopError(
      "not_found",
      "Expose embedding: no weighted layer with a tensor of the graph before it; name one with --expose",
    );
  }
  if (embedding !== undefined) names.push(embedding);
  if (names.length === 0) return model;
  const known = await inferTensors(encodeModel(model));
  for (const name of names) exposeTensor(model, name, known);
  if (embedding !== undefined) renameTensor(graphOf(model), embedding, "embedding");
  done.push(`exposed ${names.join(", ")}`);
  return model;
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

function collectNames(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.lastIndexOf("=");
  if (at < 1 || at === text.length - 1) throw new InvalidArgumentError("wanted FROM=TO");
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

function parseBatch(text: string): number | "dynamic" {
  return text === "dynamic" ? text : parsePositiveInteger(text);
}
