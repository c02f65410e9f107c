import { FieldloopError, headSchema, inputSchema } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { zeroFeeds } from "../input/prepare.js";
import { tensorToBytes } from "../package/tensor-bytes.js";
import { decodeModel } from "../onnx/model.js";
import { describeModel } from "../presets/boundary.js";
import type { ModelFacts } from "../onnx/check.js";
import type { PresetOptions, PresetResult } from "../presets/preset.js";
import { applyPreset } from "../presets/presets.js";
import { foldWhereItHelps, tidyForPackage, type TidiedModel } from "./import-model.js";
import { feedsFor, profileIn } from "./infer.js";
import { ortNode } from "./ort.js";
import { completeShapes } from "./complete-shapes.js";
import { readModelFile } from "./read-model-file.js";
import type { ModelPackage } from "./package.js";
import { withTrial, type TrialOptions, type TrialProcess } from "./trial.js";
import { firstNotFinite } from "./not-finite.js";
import { tryHeads } from "./try-heads.js";
import { writePackage, type ManifestDraft } from "./write-package.js";

export interface ImportOptions {
  readonly preset: string;
  readonly presetOptions?: PresetOptions;
  /** Task, inputs, heads and signals as a manifest has them, for what no preset says: then `preset` is only the name that is noted. */
  readonly declared?: PresetResult;
  readonly model: string;
  readonly version?: number;
  readonly licence: string;
  readonly description?: string;
  /** Now, for the manifest. */
  readonly created: Date;
  /** False leaves out the golden case. Default true. */
  readonly golden?: boolean;
  /** Sizes of symbolic dimensions: `{ N: 1 }`, or `{ "input:0": 1 }` where a dimension has no name. */
  readonly dims?: Readonly<Record<string, number>>;
  /** False keeps the graph as the exporter wrote it. Default true: constant parts are computed where that helps. */
  readonly fold?: boolean;
  /** Of the trial runs, which happen in a process of their own. */
  readonly trial?: Pick<TrialOptions, "timeoutMs" | "rssBytesMax">;
  /** What is not as the file's author may expect: an output that is left out, values that are not finite. */
  readonly onWarning?: (text: string) => void;
}

/** A package, with what its maker should know of it. */
export interface ImportedPackage extends ModelPackage {
  readonly warnings: readonly string[];
}

const VARIANT_FILE = "model.fp32.onnx";

/**
 * Makes a package of any ONNX file: our own check before anything else reads it, tidied, run once in a process of its
 * own (a file that crashes, hangs or eats memory is refused with the node named), described by a preset, with a golden
 * case recorded from this machine's run of it.
 * @throws FieldloopError `not_found`, `onnx_*`, `preset_unknown`, `package_incompatible`, `invalid_argument`,
 * `model_load_failed`, `model_run_failed`, `model_output_invalid`, `timed_out`, `limit_exceeded`, `already_exists`
 */
export async function importModel(
  file: string,
  dir: string,
  options: ImportOptions,
): Promise<ImportedPackage> {
  const warnings: string[] = [];
  const warn = (text: string) => {
    warnings.push(text);
    options.onWarning?.(text);
  };
  const { dims = {}, trial: trialOptions = {} } = options;
  const asRead = await tidyForPackage(await readModelFile(file), file, dims, warn);
  const tidied = options.declared
    ? asRead
    : await completeShapes(asRead, dims, (work) => withTrial(trialOptions, work));
  // Before anything is run: a preset that does not fit is found out at once.
  const described = { ...describeModel(decodeModel(tidied.bytes)), ...tidied.facts };
  const preset = options.declared ?? applyPreset(options.preset, described, options.presetOptions);
  checkDeclared(preset);
  warnOfTwins(preset, warn);
  if (preset.heads.length === 0) {
    warn("no head reads an output: predictions hold no result, programs get the outputs as tensors");
  }
  const { draft, files, golden } = await withTrial(trialOptions, async (trial) => {
    const model = options.fold === false ? tidied : await foldWhereItHelps(tidied, trial);
    const draft = draftOf(model.facts, preset, options);
    const files: Record<string, Uint8Array> = { [VARIANT_FILE]: model.bytes };
    return { draft, files, golden: await recordGolden(trial, model, draft, files, options, warn) };
  });
  const pkg = await writePackage(dir, golden === undefined ? draft : { ...draft, golden: [golden] }, files);
  return { ...pkg, warnings };
}

/** What an option made of inputs and heads has to fit the manifest: the first value that does not is named. */
function checkDeclared({ inputs, heads }: PresetResult): void {
  const named = [
    ...inputs.map((input) => [`input "${input.name}"`, inputSchema.safeParse(input)] as const),
    ...heads.map((head) => [`head "${head.name}"`, headSchema.safeParse(head)] as const),
  ];
  for (const [what, { error }] of named) {
    const issue = error?.issues[0];
    if (issue === undefined) continue;
    throw new FieldloopError(
      "invalid_argument",
      `Describe model: ${what}, ${issue.path.map(String).join(".")}: ${issue.message}`,
    );
  }
}

/** Some data sets name two classes alike; what is stored by label, feedback and rows to train on, cannot tell them apart. */
function warnOfTwins({ heads }: PresetResult, warn: (text: string) => void): void {
  for (const head of heads) {
    const labels = "labels" in head ? (head.labels ?? []) : [];
    const twin = labels.find((label, at) => labels.indexOf(label) !== at);
    if (twin === undefined) continue;
    warn(
      `head "${head.name}" has the label "${twin}" twice: feedback and training rows cannot tell the two apart`,
    );
  }
}

function draftOf(facts: ModelFacts, preset: PresetResult, options: ImportOptions): ManifestDraft {
  return {
    schema: 1,
    model: options.model,
    version: options.version ?? 1,
    created: options.created.toISOString(),
    description: options.description ?? "",
    licence: options.licence,
    ...preset,
    variants: [
      {
        name: "fp32",
        file: VARIANT_FILE,
        precision: "fp32",
        opset: Math.max(facts.opsets[""] ?? 1, 1),
        irVersion: facts.irVersion,
        executionProviders: ["cpu"],
      },
    ],
    lineage: {
      base: null,
      snapshot: null,
      trainer: "import",
      settings: { preset: options.preset },
      libraries: { [ortNode.name]: ortNode.version },
      metrics: {},
    },
  };
}

type GoldenDraft = NonNullable<ManifestDraft["golden"]>[number];

/** Runs the file once in a process of its own, and adds input and outputs to `files`. */
async function recordGolden(
  trial: TrialProcess,
  { bytes, facts }: TidiedModel,
  draft: ManifestDraft,
  files: Record<string, Uint8Array>,
  options: ImportOptions,
  warn: (text: string) => void,
): Promise<GoldenDraft | undefined> {
  const declared = patternFeeds(draft);
  const feeds = declared ?? feedsFor(facts.inputs, options.dims);
  const { results, summaries } = await trial.run(bytes, { feeds });
  const spoiled = Object.entries(summaries).filter(([, summary]) => summary.notFinite > 0);
  if (spoiled.length > 0) await judgeNotFinite(trial, bytes, feeds, spoiled, summaries, warn);
  tryHeads(
    draft,
    feeds,
    results,
    spoiled.map(([name]) => name),
  );
  const numeric = Object.entries(results).filter(
    ([name, tensor]) => tensor.type !== "string" && !spoiled.some(([bad]) => bad === name),
  );
  if (declared === undefined) warn("no golden case: an input takes text, which golden cases do not hold");
  if (options.golden === false || declared === undefined || numeric.length === 0) return undefined;
  return {
    name: "pattern",
    inputs: Object.entries(feeds).map(([name, tensor], at) => addTensor(files, `input-${at}`, name, tensor)),
    outputs: numeric.map(([name, tensor], at) => addTensor(files, `output-${at}`, name, tensor)),
    tolerance: {},
  };
}

/**
 * Some models give NaN for an input that none of their users sends, so zeros have a say as well: refused is what is not
 * finite for both in every value of every output.
 */
async function judgeNotFinite(
  trial: TrialProcess,
  bytes: Uint8Array,
  feeds: Record<string, Tensor>,
  spoiled: readonly (readonly [string, { notFinite: number }])[],
  summaries: Readonly<Record<string, { dims: readonly number[]; notFinite: number }>>,
  warn: (text: string) => void,
): Promise<void> {
  const { tensors } = await profileIn(trial, bytes, feeds);
  const where = firstNotFinite(bytes, tensors);
  const names = spoiled.map(([name]) => `"${name}"`).join(", ");
  const text = `${names} ${spoiled.length > 1 ? "hold" : "holds"} values that are not finite${where === undefined ? "" : `, first written by ${where}`}`;
  const isAllBad = (entry: { dims: readonly number[]; notFinite: number }) =>
    entry.notFinite === entry.dims.reduce((product, size) => product * size, 1);
  if (Object.values(summaries).every(isAllBad)) {
    const zeros = Object.fromEntries(
      Object.entries(feeds).map(([name, tensor]) => [
        name,
        tensor.data instanceof Float32Array
          ? { ...tensor, data: new Float32Array(tensor.data.length) }
          : tensor,
      ]),
    );
    const again = await trial.run(bytes, { feeds: zeros, values: false });
    if (Object.values(again.summaries).every(isAllBad)) {
      throw new FieldloopError("model_output_invalid", `Import model: output ${text}, for any input tried`);
    }
  }
  warn(`for a test pattern, output ${text}; it is left out of the golden case`);
}

function addTensor(files: Record<string, Uint8Array>, stem: string, name: string, tensor: Tensor) {
  const file = `golden/${stem}.bin`;
  files[file] = tensorToBytes(tensor);
  return { file, name, elementType: tensor.type, dims: [...tensor.dims] };
}

/** Inputs of the right shape with floats that wander over -1..1: enough to tell a broken run from a whole one. */
function patternFeeds(draft: ManifestDraft): Record<string, Tensor> | undefined {
  const inputs = draft.inputs.map((input) => inputSchema.parse(input));
  const feeds = zeroFeeds(inputs);
  const wandering = new Set(
    inputs.filter(({ kind }) => kind !== "state" && kind !== "constant").map(({ name }) => name),
  );
  for (const [name, { data }] of Object.entries(feeds ?? {})) {
    if (!(data instanceof Float32Array) || !wandering.has(name)) continue;
    for (let at = 0; at < data.length; at++) data[at] = Math.sin(at * 0.61) * Math.cos(at * 0.0173);
  }
  return feeds;
}
