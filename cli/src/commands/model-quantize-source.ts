import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  decidingHead,
  decodeDataFile,
  FieldloopError,
  type Manifest,
  type PackageFile,
} from "@fieldloop/protocol";
import {
  checkModel,
  decodeBaseline,
  sampleFrame,
  zeroFeeds,
  type Evaluation,
  type Feeds,
} from "@fieldloop/runtime";
import { openPackage, ortNode, readModelFile, type ModelPackage } from "@fieldloop/runtime/node";
import { readFrames, readTruth } from "./model-inputs.js";
import { randomFeeds, readTensorFiles } from "./model-quantize-data.js";
import { feedsOf, fileEvaluation, packageEvaluation, type Item } from "./model-quantize-judge.js";

export interface SourceFlags {
  readonly images?: string;
  readonly data?: readonly string[];
  readonly labels?: string;
  readonly random?: number;
  readonly base?: string;
  readonly search?: boolean;
  readonly calibrationMax: number;
  readonly evaluationMax: number;
}

/** A float model with inputs to calibrate on and others to judge by. */
export interface QuantizeSource {
  readonly modelBytes: Uint8Array;
  /** Undefined for a bare ONNX file. */
  readonly package: ModelPackage | undefined;
  readonly calibration: AsyncIterable<Feeds> | Iterable<Feeds>;
  readonly calibrationCount: number;
  readonly examples: readonly Feeds[];
  readonly evaluation: Evaluation | undefined;
  /** With `search` or `base`: what they choose by, on other inputs than those of `evaluation`. */
  readonly searchEvaluation: Evaluation | undefined;
  readonly warnings: readonly string[];
}

/** Inputs to compare outputs and measure speed on. */
const EXAMPLES_MAX = 8;

/** Opens a package folder or an ONNX file and reads what to calibrate and judge on; `needsData` where the method calibrates. */
export async function openSource(
  path: string,
  flags: SourceFlags,
  needsData: boolean,
): Promise<QuantizeSource> {
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new FieldloopError("not_found", `Quantize: no file or folder "${path}"`);
  return info.isDirectory()
    ? openPackageSource(path, flags, needsData)
    : openFileSource(path, flags, needsData);
}

async function openPackageSource(
  dir: string,
  flags: SourceFlags,
  needsData: boolean,
): Promise<QuantizeSource> {
  const pkg = await openPackage(dir);
  const { manifest } = pkg;
  if (manifest.nodes.length > 0) {
    throw new FieldloopError(
      "package_incompatible",
      `Quantize "${dir}": the package is a pipeline of ${manifest.nodes.length + 1} models; quantize the package of each part by itself, and put it in place with \`fieldloop pipeline replace\``,
    );
  }
  const variant = manifest.variants.find(({ precision }) => precision === "fp32");
  if (!variant) {
    throw new FieldloopError(
      "package_incompatible",
      `Quantize "${dir}": the package has no fp32 variant to start from`,
    );
  }
  const modelBytes = new Uint8Array(await readFile(join(dir, variant.file)));
  const baseline =
    manifest.baseline && decodeBaseline(new Uint8Array(await readFile(join(dir, manifest.baseline.file))));
  const judged = { manifest, baseline };
  const { calibration, evaluation: heldOut, warnings } = await packageItems(pkg, flags, needsData);
  const [evaluation, searched] = halves(heldOut, flags, isSequential(manifest));
  const evaluationOf = (items: readonly Item[]): Evaluation | undefined =>
    items.length === 0 ? undefined : packageEvaluation(modelBytes, judged, items);
  const feeds = () => feedsOf(modelBytes, judged, calibration);
  const examples: Feeds[] = [];
  const shown = evaluation.length > 0 ? evaluation : calibration;
  for await (const entry of feedsOf(modelBytes, judged, shown.slice(0, EXAMPLES_MAX))) examples.push(entry);
  return {
    modelBytes,
    package: pkg,
    calibration: feeds(),
    calibrationCount: calibration.length,
    examples,
    evaluation: evaluationOf(evaluation),
    searchEvaluation: evaluationOf(searched),
    warnings,
  };
}

interface Items {
  readonly calibration: readonly Item[];
  readonly evaluation: readonly Item[];
  readonly warnings: readonly string[];
}

async function packageItems(pkg: ModelPackage, flags: SourceFlags, needsData: boolean): Promise<Items> {
  const { manifest } = pkg;
  const labels = decidingHead(manifest.heads)?.labels ?? [];
  const paths = [...(flags.images === undefined ? [] : [flags.images]), ...(flags.data ?? [])];
  if (paths.length > 0) {
    const truths = flags.labels === undefined ? [] : await readTruth(flags.labels, labels);
    const items: Item[] = [];
    for await (const { frame } of readFrames(paths, manifest)) {
      if (items.length >= flags.calibrationMax + flags.evaluationMax) break;
      const truth = truths[items.length];
      items.push(truth === undefined ? { frame } : { frame, truth });
    }
    return { ...split(items, flags, isSequential(manifest)), warnings: [] };
  }
  const read = async (file: PackageFile | undefined): Promise<Item[]> => {
    if (!file) return [];
    const stored = decodeDataFile(new Uint8Array(await readFile(join(pkg.dir, file.file))));
    return stored.map(({ media, label, payload }) => {
      const truth = labels.indexOf(label);
      const frame = sampleFrame(media, payload);
      return truth < 0 ? { frame } : { frame, truth };
    });
  };
  const replay = await read(manifest.replay);
  const holdout = await read(manifest.holdout);
  if (replay.length > 0 || holdout.length > 0) {
    if (replay.length === 0) return { ...split(holdout, flags, false), warnings: [] };
    if (holdout.length === 0) return { ...split(replay, flags, false), warnings: [] };
    return {
      calibration: spread(replay, flags.calibrationMax),
      evaluation: spread(holdout, flags.evaluationMax),
      warnings: [],
    };
  }
  if (flags.random === undefined) {
    if (!needsData)
      return {
        calibration: [],
        evaluation: [],
        warnings: ["no inputs given: accuracy and speed were not measured"],
      };
    throw noInputs("the package holds no replay or holdout data");
  }
  const items = noiseFor(manifest, flags.random).map(
    (feeds): Item => ({ frame: { kind: "tensors", feeds } }),
  );
  return { calibration: items, evaluation: [], warnings: [RANDOM_WARNING] };
}

/** Noise in the sizes that the manifest gives frames, beside constants and the state of a new stream. */
function noiseFor({ inputs }: Manifest, count: number): Feeds[] {
  const zeros = zeroFeeds(inputs);
  if (zeros === undefined) throw noInputs("an input takes text, which noise cannot be");
  const fed = inputs.filter(({ kind }) => kind !== "state" && kind !== "constant");
  const infos = fed.map(({ name }) => ({ name, type: zeros[name]!.type, dims: zeros[name]!.dims }));
  return randomFeeds(infos, count).map((feeds) => ({ ...zeros, ...feeds }));
}

const RANDOM_WARNING =
  "random inputs say nothing about real ones: ranges and figures are those of noise, and accuracy was not measured";

function noInputs(why: string): FieldloopError {
  return new FieldloopError(
    "invalid_argument",
    `Calibrate: ${why}; name inputs with --images or --data, or ask for noise with --random N`,
  );
}

/** Calibration takes every so many of the inputs, judging the others; where one depends on those before it, each takes a stretch. */
function split<T>(
  items: readonly T[],
  flags: SourceFlags,
  sequential: boolean,
): { calibration: T[]; evaluation: T[] } {
  const wanted = Math.min(flags.calibrationMax, Math.ceil(items.length / 2));
  const taken = new Set(
    Array.from({ length: wanted }, (_, at) => (sequential ? at : Math.floor((at * items.length) / wanted))),
  );
  const rest = items.filter((_, at) => !taken.has(at));
  return {
    calibration: items.filter((_, at) => taken.has(at)),
    evaluation: sequential ? rest.slice(0, flags.evaluationMax) : spread(rest, flags.evaluationMax),
  };
}

/** Inputs to judge by, and, where there is something to choose, others to choose by: none where there are not enough for both. */
function halves<T>(items: readonly T[], { search, base }: SourceFlags, sequential: boolean): [T[], T[]] {
  if ((!search && base === undefined) || items.length < 2) return [[...items], []];
  const isSearched = (at: number): boolean => (sequential ? at < Math.floor(items.length / 2) : at % 2 === 1);
  return [items.filter((_, at) => !isSearched(at)), items.filter((_, at) => isSearched(at))];
}

function spread<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, at) => items[Math.floor((at * items.length) / count)]!);
}

function isSequential(manifest: Manifest): boolean {
  return manifest.inputs.some(
    (input) => input.kind === "state" || (input.kind === "window" && input.context > 0),
  );
}

async function inputsOf(modelBytes: Uint8Array) {
  // Before the engine reads it, as everywhere: our reasons say where a file is wrong.
  checkModel(modelBytes);
  const session = await ortNode.openSession(modelBytes, { threadCount: 1, executionProvider: "cpu" });
  const { inputs } = session;
  await session.release();
  return inputs;
}

async function openFileSource(path: string, flags: SourceFlags, needsData: boolean): Promise<QuantizeSource> {
  const modelBytes = new Uint8Array(await readModelFile(path));
  if (flags.images !== undefined) {
    throw new FieldloopError(
      "invalid_argument",
      `Quantize "${path}": an ONNX file does not say how images become its input; import it with a preset and quantize the package`,
    );
  }
  const inputs = await inputsOf(modelBytes);
  const random = flags.random !== undefined;
  if (flags.data === undefined && !random && needsData) throw noInputs("no inputs given");
  const all =
    flags.data === undefined
      ? randomFeeds(inputs, flags.random ?? EXAMPLES_MAX)
      : await readTensorFiles(flags.data, inputs, Number.POSITIVE_INFINITY);
  const truths = flags.labels === undefined ? undefined : await readTruth(flags.labels, []);
  const items = all.map((feeds, at) => ({ feeds, truth: truths?.[at] }));
  const parts =
    flags.data === undefined ? { calibration: items, evaluation: [] } : split(items, flags, false);
  const [judged, searched] = halves(parts.evaluation, flags, false);
  const evaluationOf = (some: typeof items): Evaluation | undefined =>
    some.length === 0 ? undefined : fileEvaluation(modelBytes, some);
  const feeds = judged.map((item) => item.feeds);
  return {
    modelBytes,
    package: undefined,
    calibration: parts.calibration.map((item) => item.feeds),
    calibrationCount: parts.calibration.length,
    examples: (feeds.length > 0 ? feeds : all).slice(0, EXAMPLES_MAX),
    evaluation: evaluationOf(judged),
    searchEvaluation: evaluationOf(searched),
    warnings: flags.data === undefined ? [RANDOM_WARNING] : [],
  };
}
