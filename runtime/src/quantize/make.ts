import type { Backend } from "../backend.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import { graphSignature } from "../onnx/inspect.js";
import {
  measureSpeed,
  type AcceptanceBounds,
  type AccuracyReport,
  type NearBaseReport,
  type QuantizeMethod,
  type VariantReport,
} from "./assess.js";
import { compareModels } from "./compare.js";
import { requireNames, type ConvertResult } from "./convert.js";
import { quantizeDynamic } from "./dynamic.js";
import { convertToFloat16 } from "./fp16.js";
import { quantizeInt4 } from "./int4.js";
import { countKernels } from "./kernels.js";
import type { CalibrationMethod } from "./observer.js";
import { searchNearBase } from "./near-base-search.js";
import { openStaticQuantizer, type StaticQuantizer } from "./quantize.js";
import type { QuantizationScheme, SchemeSettings } from "./scheme.js";
import { searchFloatNodes, type SearchResult } from "./search.js";
import type {
  Feeds,
  FoldModel,
  OutputReport,
  QuantizationReport,
  QuantizedBase,
  QuantizeProgress,
} from "./types.js";

/** How a variant is made; what a method does not know it ignores. */
export interface VariantSettings {
  readonly method: QuantizeMethod;
  readonly scheme: QuantizationScheme;
  readonly types: SchemeSettings;
  readonly perChannel: boolean;
  readonly calibrationMethod: CalibrationMethod;
  readonly minimumRealRange?: number;
  readonly blockSize: number;
  readonly symmetricBlocks: boolean;
  readonly accuracyLevel: 0 | 1 | 4;
  readonly keepFloat: readonly string[];
}

/** How good models are, on inputs that were not calibrated on. */
export interface Evaluation {
  readonly metric: AccuracyReport["metric"];
  readonly samples: number;
  readonly evaluate: (modelBytes: Uint8Array) => Promise<number>;
}

export interface MakeVariantOptions {
  readonly backend: Backend;
  readonly fold: FoldModel;
  /** Static quantization only; read once. */
  readonly calibration: AsyncIterable<Feeds> | Iterable<Feeds>;
  /** A few inputs to compare outputs and measure speed on. */
  readonly examples: readonly Feeds[];
  readonly evaluation?: Evaluation;
  /**
   * Look for nodes to leave in float where the accuracy bound does not hold; static quantization only. It chooses by an `evaluation` of
   * its own, on other inputs than the variant is judged by in the end: else the choice would flatter its own judge.
   */
  readonly search?: { readonly evaluationsMax: number; readonly evaluation: Evaluation };
  /** Stay near the levels of a version that devices have, as far as accuracy holds; static quantization only. */
  readonly base?: MakeNearBase;
  readonly bounds: AcceptanceBounds;
  readonly threadCount: number;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  /** How long to measure speed; 0 leaves it out. */
  readonly measureMs: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: QuantizeProgress) => void;
}

export interface MakeNearBase {
  readonly quantized: QuantizedBase;
  /** Judges how near the levels may stay; on other inputs than `evaluation`, as in a search for nodes. */
  readonly evaluation: Evaluation;
  /** Bytes that travel to a device that has the base. */
  readonly deltaBytes: (variantBytes: Uint8Array) => number;
}

export interface MadeVariant {
  readonly bytes: Uint8Array;
  readonly report: VariantReport;
}

/**
 * Makes a smaller or faster form of a float model by any method, and measures it: outputs against the float model's, kernels, size,
 * speed in turns with the float model, accuracy of both. Whether it is worth having is for `requireWorth` to say.
 * Throws what the methods throw.
 */
export async function makeVariant(
  modelBytes: Uint8Array,
  settings: VariantSettings,
  options: MakeVariantOptions,
): Promise<MadeVariant> {
  const { backend, fold, evaluation, onProgress } = options;
  const floatAccuracy = await evaluation?.evaluate(modelBytes);
  const made =
    settings.method === "static"
      ? await makeStatic(modelBytes, settings, options)
      : fromConversion(await convert(modelBytes, settings, options));
  const { bytes } = made;
  const accuracy =
    evaluation && floatAccuracy !== undefined
      ? {
          metric: evaluation.metric,
          samples: evaluation.samples,
          float: floatAccuracy,
          variant: await evaluation.evaluate(bytes),
        }
      : undefined;
  if (options.measureMs > 0) onProgress?.({ stage: "measure", done: 0 });
  const speed =
    options.measureMs > 0 && options.examples.length > 0
      ? await measureSpeed(modelBytes, bytes, options.examples, { ...options, durationMs: options.measureMs })
      : undefined;
  return {
    bytes,
    report: {
      method: settings.method,
      settings: recordedSettings(settings),
      bytesBefore: modelBytes.length,
      bytesAfter: bytes.length,
      nodesConvertible: made.nodesConvertible,
      nodesConverted: made.nodesConverted,
      kernels: await countKernels(backend, fold, bytes),
      layers: made.static?.layers ?? [],
      outputs: await compareOutputs(modelBytes, bytes, options),
      left: made.left,
      warnings: made.warnings,
      ...(speed === undefined ? {} : { speed }),
      ...(accuracy === undefined ? {} : { accuracy }),
      ...(made.search === undefined ? {} : { search: made.search }),
      ...(made.base === undefined ? {} : { base: made.base }),
    },
  };
}

interface Made {
  readonly bytes: Uint8Array;
  readonly nodesConvertible: number;
  readonly nodesConverted: number;
  readonly left: ConvertResult["left"];
  readonly warnings: readonly string[];
  readonly static?: QuantizationReport;
  readonly search?: SearchResult;
  readonly base?: NearBaseReport;
}

async function makeStatic(
  modelBytes: Uint8Array,
  settings: VariantSettings,
  options: MakeVariantOptions,
): Promise<Made> {
  const { keepFloat, types, perChannel, minimumRealRange } = settings;
  const { search, base } = options;
  const { base: _, ...shared } = options;
  const quantizer = await openStaticQuantizer(modelBytes, {
    ...shared,
    ...types,
    perChannel,
    method: settings.calibrationMethod,
    ...(minimumRealRange === undefined ? {} : { minimumRealRange }),
    ...(base === undefined ? {} : { base: base.quantized }),
  });
  requireNames(graphOf(decodeModel(quantizer.floatBytes)), keepFloat);
  let kept = keepFloat;
  let found: SearchResult | undefined;
  if (search) {
    const { evaluate } = search.evaluation;
    const floatAccuracy = await evaluate(modelBytes);
    found = await searchFloatNodes(quantizer, {
      ...options,
      evaluate,
      accuracyMin: floatAccuracy - options.bounds.accuracyDropMax,
      evaluationsMax: search.evaluationsMax,
      startFrom: keepFloat,
    });
    kept = found.keepFloat;
  }
  const near = base && (await stayNear(quantizer, kept, base, options));
  const { bytes, report } = await quantizer.quantize(kept, near?.changeCost ?? undefined);
  return {
    bytes,
    nodesConvertible: quantizer.quantizable.length,
    nodesConverted: report.layers.length,
    left: kept.map((node) => ({
      node,
      operator: "",
      reason: keepFloat.includes(node) ? "asked for" : "costs accuracy",
    })),
    warnings: [],
    static: report,
    ...(found === undefined ? {} : { search: found }),
    ...(near === undefined ? {} : { base: near }),
  };
}

async function stayNear(
  quantizer: StaticQuantizer,
  keepFloat: readonly string[],
  { evaluation, deltaBytes }: MakeNearBase,
  { signal, onProgress }: MakeVariantOptions,
): Promise<NearBaseReport> {
  const { bytes, rounded, changeCost, trail } = await searchNearBase(quantizer, {
    evaluate: async (candidate) => [await evaluation.evaluate(candidate)],
    keepFloat,
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  return {
    changeCost: changeCost ?? null,
    deltaBytes: deltaBytes(bytes),
    deltaBytesRounded: deltaBytes(rounded),
    metric: evaluation.metric,
    samples: evaluation.samples,
    trail: trail.map((trial) => ({ changeCost: trial.changeCost ?? null, accuracy: trial.accuracies[0]! })),
  };
}

function convert(
  modelBytes: Uint8Array,
  settings: VariantSettings,
  { backend, fold }: MakeVariantOptions,
): Promise<ConvertResult> {
  const shared = { backend, fold, keepFloat: settings.keepFloat };
  switch (settings.method) {
    case "dynamic":
    case "static": {
      const { perChannel, types } = settings;
      return quantizeDynamic(modelBytes, { ...shared, perChannel, reduceRange: types.reduceRange });
    }
    case "int4": {
      const { blockSize, symmetricBlocks: symmetric, accuracyLevel } = settings;
      return quantizeInt4(modelBytes, { ...shared, blockSize, symmetric, accuracyLevel });
    }
    case "fp16":
      return convertToFloat16(modelBytes, { ...shared, mode: "compute" });
    case "fp16-storage":
      return convertToFloat16(modelBytes, { ...shared, mode: "storage" });
  }
}

function fromConversion({ bytes, converted, left, warnings }: ConvertResult): Made {
  const nodesConverted = converted.length;
  return { bytes, nodesConvertible: nodesConverted + left.length, nodesConverted, left, warnings };
}

async function compareOutputs(
  modelBytes: Uint8Array,
  bytes: Uint8Array,
  options: MakeVariantOptions,
): Promise<OutputReport[]> {
  const { outputs } = graphSignature(graphOf(decodeModel(modelBytes)));
  const pairs = outputs
    .filter(({ type }) => type === "float32")
    .map(({ name }) => ({ reference: name, test: name }));
  const compared = await compareModels(modelBytes, bytes, pairs, options.examples, "fused", options);
  return pairs.map(({ reference }) => ({ name: reference, ...compared.get(reference)! }));
}

function recordedSettings(settings: VariantSettings): Record<string, string | number | boolean> {
  const { method, scheme, types, perChannel, calibrationMethod, minimumRealRange } = settings;
  switch (method) {
    case "static":
      return {
        scheme,
        perChannel,
        reduceRange: types.reduceRange,
        calibration:
          calibrationMethod.kind === "percentile"
            ? `percentile ${calibrationMethod.percentile}`
            : calibrationMethod.kind,
        ...(minimumRealRange === undefined ? {} : { minimumRealRange }),
      };
    case "dynamic":
      return { perChannel, reduceRange: types.reduceRange };
    case "int4":
      return {
        blockSize: settings.blockSize,
        symmetric: settings.symmetricBlocks,
        accuracyLevel: settings.accuracyLevel,
      };
    case "fp16":
    case "fp16-storage":
      return {};
  }
}
