import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  ROOT_NODE,
  toFieldloopError,
  type Head,
  type ModelInput,
  type PipelineSpec,
} from "@fieldloop/protocol";
import type { Tensor, TensorInfo } from "../backend.js";
import { headOutputs } from "../heads/read.js";
import { zeroFeeds } from "../input/prepare.js";
import { checkModel } from "../onnx/check.js";
import { exposeTensor, splitModel, type ModelPart, type SplitModel } from "../onnx/extract.js";
import { sharedCut } from "../onnx/shared-cut.js";
import { graphSignature } from "../onnx/inspect.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { tensorToBytes } from "../package/tensor-bytes.js";
import { ortNode } from "./ort.js";
import type { ModelPackage } from "./package.js";
import { featuresOf, type GoldenFeatures, type SplitVariant } from "./split-features.js";
import { tryModel } from "./trial.js";
import { writePackage, type ManifestDraft } from "./write-package.js";

export interface SplitPackageOptions {
  /** Tensors at which to cut; by default the last one through which everything passes before a weighted layer. */
  readonly at?: readonly string[];
  /** Of the pipeline to be; one more than the model's by default. */
  readonly version?: number;
  readonly created: Date;
}

export interface SplitPackageResult {
  /** What `buildPipeline` makes the same model of again; folders are from `dir`. */
  readonly spec: PipelineSpec;
  /** By node name. */
  readonly parts: ReadonlyMap<string, ModelPackage>;
  /** Variants whose graph has no such tensor, or falls apart otherwise. */
  readonly variantsLeftOut: readonly { readonly variant: string; readonly reason: string }[];
}

/**
 * Cuts a plain model's package into packages of its own for the backbone and for each head behind the cut, which a pipeline puts together
 * again: then one head can be replaced alone. What each part is to give is recorded as golden cases, made of those of the whole.
 * @throws FieldloopError `not_found` for a tensor that no variant has, `invalid_argument` where the package cannot be cut there, and as
 * {@link writePackage}
 */
export async function splitPackage(
  dir: string,
  pkg: ModelPackage,
  options: SplitPackageOptions,
): Promise<SplitPackageResult> {
  const { manifest } = pkg;
  if (manifest.nodes.length > 0)
    throw refuse(`"${manifest.model}@${manifest.version}" is a pipeline already`);
  const { at, variants, leftOut } = await splitVariants(pkg, options.at);
  const { split } = variants[0]!;
  requireWhole(manifest.heads, [split.backbone, ...split.heads]);
  const features = await featuresOf(pkg, variants, at);
  const common = { pkg, at, variants, features, created: options.created };
  const parts = new Map<string, ModelPackage>();
  const nodes: PipelineSpec["nodes"] = [];
  await makeFolder(dir);
  try {
    const backbone = await backboneDraft(common);
    parts.set(ROOT_NODE, await writePackage(join(dir, "backbone"), backbone.draft, backbone.files));
    for (const index of split.heads.keys()) {
      const { draft, files, tensors } = await headDraft(common, index);
      const [first] = draft.heads;
      // Outputs that no head of the manifest reads.
      if (first === undefined) continue;
      const name = nodeName(first.name, parts);
      parts.set(name, await writePackage(join(dir, name), draft, files));
      nodes.push({ name, package: name, from: { kind: "tensors", node: ROOT_NODE, tensors } });
    }
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
  const { model, version, description } = manifest;
  const spec: PipelineSpec = {
    model,
    version: options.version ?? version + 1,
    description,
    licence: manifest.licence,
    root: "backbone",
    nodes,
  };
  return { spec, parts, variantsLeftOut: leftOut };
}

async function splitVariants(
  pkg: ModelPackage,
  wanted: readonly string[] | undefined,
): Promise<{
  at: readonly string[];
  variants: SplitVariant[];
  leftOut: SplitPackageResult["variantsLeftOut"];
}> {
  const variants: SplitVariant[] = [];
  const leftOut: { variant: string; reason: string }[] = [];
  let at = wanted;
  let lastError: FieldloopError | undefined;
  for (const variant of pkg.manifest.variants) {
    const bytes = await readFile(join(pkg.dir, variant.file));
    const model = decodeModel(bytes);
    try {
      at ??= candidateOf(model, pkg.manifest.inputs);
      const split = splitModel(model, at, await infosOf(bytes, at, pkg.manifest.inputs));
      const shape = ({ backbone, heads }: SplitModel): string =>
        JSON.stringify([backbone.outputs, heads.map(({ inputs, outputs }) => [inputs, outputs])]);
      if (variants[0] !== undefined && shape(variants[0].split) !== shape(split))
        throw refuse(`variant "${variant.name}" falls into other parts than "${variants[0].variant.name}"`);
      variants.push({ variant, split });
    } catch (error) {
      lastError = toFieldloopError(error);
      leftOut.push({ variant: variant.name, reason: lastError.message });
    }
  }
  if (variants.length === 0) throw lastError!;
  return { at: at!, variants, leftOut };
}

/** Types and shapes of inner tensors, as the engine sees them; what it leaves open even of the rank, a run with the inputs of the package tells. */
async function infosOf(
  bytes: Uint8Array,
  names: readonly string[],
  inputs: readonly ModelInput[],
): Promise<ReadonlyMap<string, TensorInfo>> {
  checkModel(bytes);
  const model = decodeModel(bytes);
  for (const name of names) exposeTensor(model, name);
  const exposed = encodeModel(model);
  const session = await ortNode.openSession(exposed, {
    threadCount: 1,
    executionProvider: "cpu",
    graphOptimization: "disabled",
  });
  const infos = new Map(session.outputs.map((info) => [info.name, info]));
  await session.release();
  const unknown = names.filter((name) => infos.get(name)?.dims.length === 0);
  const feeds = unknown.length === 0 ? undefined : zeroFeeds(inputs);
  if (feeds === undefined) return infos;
  const { summaries } = await tryModel(exposed, { feeds, fetches: unknown, values: false });
  for (const name of unknown) infos.set(name, { ...infos.get(name)!, dims: summaries[name]?.dims ?? [] });
  return infos;
}

/** @throws FieldloopError where a head of the manifest reads outputs of two parts */
function requireWhole(heads: readonly Head[], parts: readonly ModelPart[]): void {
  for (const head of heads) {
    const reads = headOutputs([head]);
    if (parts.some(({ outputs }) => reads.every((name) => outputs.includes(name)))) continue;
    throw refuse(`head "${head.name}" reads outputs of more than one part`);
  }
}

async function makeFolder(dir: string): Promise<void> {
  try {
    await mkdir(dir);
  } catch (cause) {
    const isThere = (cause as NodeJS.ErrnoException).code === "EEXIST";
    const reason = isThere ? "is there already" : (cause as Error).message;
    const code = isThere ? "already_exists" : "storage_failed";
    throw new FieldloopError(code, `Split package: "${dir}" ${reason}`, { cause });
  }
}

/** The last tensor before a weighted layer through which everything passes that the heads need of a frame. */
function candidateOf(model: ReturnType<typeof decodeModel>, inputs: readonly ModelInput[]): string[] {
  const carried = new Set(inputs.filter(isCarried).map(({ name }) => name));
  const shared = sharedCut(model, carried);
  if (shared === undefined) throw refuse("no one tensor holds all that the outputs need: say where to cut");
  return [shared];
}

/** Fed by no frame. */
function isCarried({ kind }: Pick<ModelInput, "kind">): boolean {
  return kind === "state" || kind === "constant";
}

interface Common {
  readonly pkg: ModelPackage;
  readonly at: readonly string[];
  readonly variants: readonly SplitVariant[];
  readonly features: readonly GoldenFeatures[];
  readonly created: Date;
}

type Draft = { readonly draft: ManifestDraft; readonly files: Record<string, Uint8Array> };

async function backboneDraft(common: Common): Promise<Draft> {
  const { pkg, features, variants } = common;
  const { manifest } = pkg;
  const files: Record<string, Uint8Array> = {};
  const part = variants[0]!.split.backbone;
  const golden = features.map(({ golden: { name, inputs }, tensors, tolerance }, index) => {
    const kept = inputs.filter((input) => part.inputs.includes(input.name));
    return {
      name,
      inputs: kept,
      outputs: tensorFiles(`golden/${index}-features`, tensors, files),
      tolerance,
    };
  });
  for (const { inputs } of golden)
    for (const { file } of inputs) files[file] ??= await readFile(join(pkg.dir, file));
  if (manifest.baseline)
    files[manifest.baseline.file] = await readFile(join(pkg.dir, manifest.baseline.file));
  const draft = partDraft(common, "backbone", part, (split) => split.backbone, files);
  const baseline = manifest.baseline && { file: manifest.baseline.file };
  requireInputs("the backbone", part, draft.inputs);
  return {
    draft: { ...draft, golden, ...(baseline === undefined ? {} : { baseline }) },
    files,
  };
}

/** One head: fed with what of the cut it reads, and with state and constants of its own. */
async function headDraft(
  common: Common,
  index: number,
): Promise<Draft & { readonly tensors: Record<string, string> }> {
  const { pkg, at, features, variants } = common;
  const files: Record<string, Uint8Array> = {};
  const part = variants[0]!.split.heads[index]!;
  const read = at.filter((name) => part.inputs.includes(name));
  const draft = partDraft(common, `head-${index + 1}`, part, (split) => split.heads[index]!, files);
  const inputs = [...read.map((name) => tensorInput(part, name)), ...draft.inputs];
  const frame = draft.inputs.find((input) => !isCarried(input));
  if (frame !== undefined)
    throw refuse(
      `what lies behind "${at.join('", "')}" needs "${frame.name}" as well, so it would hold the backbone again; cut where all of it passes, or name more tensors`,
    );
  requireInputs(`the head behind "${read.join('", "')}"`, part, inputs);
  const golden = features.flatMap(({ golden: { name, outputs, tolerance }, tensors }, number) => {
    const kept = outputs.filter((output) => part.outputs.includes(output.name));
    const fed = Object.fromEntries(read.map((tensor) => [tensor, tensors[tensor]!]));
    return kept.length === 0 || inputs.length > read.length
      ? []
      : [{ name, inputs: tensorFiles(`golden/${number}-features`, fed, files), outputs: kept, tolerance }];
  });
  for (const { outputs } of golden)
    for (const { file } of outputs) files[file] ??= await readFile(join(pkg.dir, file));
  return {
    draft: { ...draft, inputs, golden },
    files,
    tensors: Object.fromEntries(read.map((name) => [name, name])),
  };
}

/** What every part has of the whole: the inputs and heads that its graph knows, and its share of each variant. */
function partDraft(
  { pkg, variants, at, created }: Common,
  stem: string,
  part: ModelPart,
  partOf: (split: SplitModel) => ModelPart,
  files: Record<string, Uint8Array>,
): ManifestDraft & { heads: Head[] } {
  const { manifest, packageSha256 } = pkg;
  const { model, version } = manifest;
  const heads = manifest.heads.filter((head) =>
    headOutputs([head]).every((name) => part.outputs.includes(name)),
  );
  const behindCut = heads.find((head) => head.kind === "anomaly" && head.method === "reconstruction");
  if (behindCut !== undefined && at.some((name) => part.inputs.includes(name)))
    throw refuse(`head "${behindCut.name}" compares with the input, which does not reach behind the cut`);
  return {
    schema: 1,
    model: `${model.slice(0, 50)}-${stem}`,
    version,
    created: created.toISOString(),
    // A backbone without heads of its own is there for a pipeline alone.
    task: heads[0]?.kind ?? "pipeline",
    description: `The ${stem} of ${model}@${version}`,
    licence: manifest.licence,
    inputs: manifest.inputs.filter(({ name }) => part.inputs.includes(name)),
    heads,
    signals: manifest.signals,
    variants: variants.map(({ variant, split }) => {
      const { sha256: _, bytes: __, ...rest } = variant;
      const file = `${variant.name}.onnx`;
      files[file] = encodeModel(partOf(split).model);
      return { ...rest, file };
    }),
    lineage: {
      base: { model, version, sha256: packageSha256 },
      snapshot: null,
      trainer: "none: cut out of a whole",
      settings: { cut: at.join(", ") },
      libraries: {},
      metrics: {},
    },
  };
}

/** @throws FieldloopError where a part needs an input that it cannot have behind the cut, or state that another part computes */
function requireInputs(
  what: string,
  part: ModelPart,
  inputs: readonly ManifestDraft["inputs"][number][],
): void {
  const declared = new Set(inputs.map(({ name }) => name));
  const unknown = part.inputs.find((name) => !declared.has(name));
  if (unknown !== undefined) throw refuse(`${what} needs "${unknown}", which the manifest does not describe`);
  for (const input of inputs) {
    if (input.kind === "state" && !part.outputs.includes(input.output))
      throw refuse(
        `${what} carries state "${input.name}" from "${input.output}", which another part computes`,
      );
  }
}

function tensorInput(part: ModelPart, name: string): ModelInput {
  const info = graphSignature(graphOf(part.model)).inputs.find((one): one is TensorInfo => one.name === name);
  if (info === undefined) throw refuse(`the type of "${name}" is not known`);
  const dims = info.dims.map((size) => (typeof size === "number" && size > 0 ? size : 0));
  return { kind: "tensor", name, elementType: info.type, dims };
}

function tensorFiles(
  stem: string,
  tensors: Readonly<Record<string, Tensor>>,
  files: Record<string, Uint8Array>,
): { name: string; file: string; elementType: Tensor["type"]; dims: number[] }[] {
  return Object.entries(tensors).map(([name, tensor], at) => {
    const file = `${stem}-${at}.bin`;
    files[file] = tensorToBytes(tensor);
    return { name, file, elementType: tensor.type, dims: [...tensor.dims] };
  });
}

/** A node's name from a head's: lower case, other characters as hyphens, with a number where it is taken. */
function nodeName(head: string, parts: ReadonlyMap<string, unknown>): string {
  const stem =
    head
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 28) || "head";
  let name = stem;
  for (let count = 2; parts.has(name) || name === "backbone"; count++) name = `${stem}-${count}`;
  return name;
}

function refuse(reason: string): FieldloopError {
  return new FieldloopError("invalid_argument", `Split package: ${reason}`);
}
