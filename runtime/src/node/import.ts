import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FieldloopError, LIMITS, inputSchema } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { zeroFeeds } from "../input/prepare.js";
import { checkModel } from "../onnx/check.js";
import { decodeModel, encodeModel } from "../onnx/model.js";
import { tidyModel } from "../onnx/tidy.js";
import { tensorToBytes } from "../package/tensor-bytes.js";
import type { PresetOptions } from "../presets/preset.js";
import { applyPreset } from "../presets/presets.js";
import { ortNode } from "./ort.js";
import type { ModelPackage } from "./package.js";
import { writePackage, type ManifestDraft } from "./write-package.js";

export interface ImportOptions {
  readonly preset: string;
  readonly presetOptions?: PresetOptions;
  readonly model: string;
  readonly version?: number;
  readonly licence: string;
  readonly description?: string;
  /** Now, for the manifest. */
  readonly created: Date;
  /** False leaves out the golden case. Default true. */
  readonly golden?: boolean;
}

const VARIANT_FILE = "model.fp32.onnx";

/**
 * Makes a package of any ONNX file: our own check before anything else reads it, tidied, described by a preset, with a
 * golden case recorded from this machine's run of it.
 * @throws FieldloopError `not_found`, `onnx_*`, `preset_unknown`, `package_incompatible`, `invalid_argument`,
 * `model_load_failed`, `model_run_failed`, `already_exists`
 */
export async function importModel(file: string, dir: string, options: ImportOptions): Promise<ModelPackage> {
  const original = await readModelFile(file);
  checkModel(original);
  const decoded = decodeModel(original);
  tidyModel(decoded);
  const bytes = encodeModel(decoded);
  const facts = checkModel(bytes);
  const preset = applyPreset(options.preset, facts, options.presetOptions);
  const draft: ManifestDraft = {
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
  const files: Record<string, Uint8Array> = { [VARIANT_FILE]: bytes };
  const golden = options.golden === false ? undefined : await recordGolden(bytes, draft, files);
  return writePackage(dir, golden === undefined ? draft : { ...draft, golden: [golden] }, files);
}

/** @throws FieldloopError `not_found` or `onnx_too_large` */
export async function readModelFile(file: string): Promise<Uint8Array> {
  const info = await stat(file).catch(() => undefined);
  if (!info?.isFile()) throw new FieldloopError("not_found", `Read ONNX: no file "${file}"`);
  if (info.size > LIMITS.onnxBytesMax) {
    throw new FieldloopError(
      "onnx_too_large",
      `Read ONNX: "${file}" has ${info.size} bytes, at most ${LIMITS.onnxBytesMax} allowed`,
    );
  }
  return readFile(file);
}

/** Runs the file once, by path from an empty folder, and adds input and outputs to `files`. */
async function recordGolden(
  bytes: Uint8Array,
  draft: ManifestDraft,
  files: Record<string, Uint8Array>,
): Promise<NonNullable<ManifestDraft["golden"]>[number] | undefined> {
  const feeds = patternFeeds(draft);
  if (feeds === undefined) return undefined;
  const scratch = await mkdtemp(join(tmpdir(), "fieldloop-import-"));
  try {
    const path = join(scratch, VARIANT_FILE);
    await writeFile(path, bytes);
    const session = await ortNode.openSession(path, { threadCount: 1, executionProvider: "cpu" });
    try {
      const outputs = await session.run(feeds);
      const numeric = Object.entries(outputs).filter(([, tensor]) => tensor.type !== "string");
      return {
        name: "pattern",
        inputs: Object.entries(feeds).map(([name, tensor], at) =>
          addTensor(files, `input-${at}`, name, tensor),
        ),
        outputs: numeric.map(([name, tensor], at) => addTensor(files, `output-${at}`, name, tensor)),
        tolerance: {},
      };
    } finally {
      await session.release();
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function addTensor(files: Record<string, Uint8Array>, stem: string, name: string, tensor: Tensor) {
  const file = `golden/${stem}.bin`;
  files[file] = tensorToBytes(tensor);
  return { file, name, elementType: tensor.type, dims: [...tensor.dims] };
}

/** Inputs of the right shape with floats that wander over -1..1: enough to tell a broken run from a whole one. */
function patternFeeds(draft: ManifestDraft): Record<string, Tensor> | undefined {
  const feeds = zeroFeeds(draft.inputs.map((input) => inputSchema.parse(input)));
  for (const { data } of Object.values(feeds ?? {})) {
    if (!(data instanceof Float32Array)) continue;
    for (let at = 0; at < data.length; at++) data[at] = Math.sin(at * 0.61) * Math.cos(at * 0.0173);
  }
  return feeds;
}
