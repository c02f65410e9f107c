import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { FieldloopError, ROOT_NODE, type Manifest, type Variant } from "@fieldloop/protocol";
import type { Session, Tensor } from "../backend.js";
import type { Frame, PreparedFrame } from "../input/frame.js";
import { zeroFeeds } from "../input/prepare.js";
import { checkModel } from "../onnx/check.js";
import { chooseVariant } from "../package/variant.js";
import { pipelineParts, wantedOutputs, type PipelinePart } from "../pipeline/graph.js";
import { Pipeline } from "../pipeline/pipeline.js";
import { Predictor, type BatchItem, type Prediction } from "../predict.js";
import { decodeBaseline, type Baseline } from "../profile/baseline.js";
import { backendFor } from "./backends.js";
import { hostFacts } from "./facts.js";
import { decodeImage, prepareImage } from "./image.js";
import type { ModelPackage } from "./package.js";

export interface OpenModelOptions {
  /** Name of a variant; the one that suits this machine best by default. Nodes of a pipeline that have none of this name choose by themselves. */
  readonly variant?: string;
  readonly executionProvider?: string;
  /**
   * Threads inside one operator: the sum over all sessions of a process must not exceed its cores. Parts of a pipeline run one after the
   * other, and share this one budget.
   */
  readonly threadCount: number;
  /** Microseconds a thread spins after a run before it sleeps. Default 500, for the parts of a pipeline 50. */
  readonly spinDurationUs?: number;
  /**
   * Milliseconds between the steps of opening, where frames run in the same thread: each of them then meets one step at most. By default
   * the steps follow on one another, each in its turn.
   */
  readonly stepPauseMs?: number;
  /** Milliseconds of a monotonic clock; `performance.now` by default. */
  readonly now?: () => number;
}

/** At camera rates this saves most of the spinning that ONNX Runtime does by default, and costs no latency. */
export const DEFAULT_SPIN_DURATION_US = 500;
/**
 * Long enough to stay awake from one operator to the next, short enough that the threads of one part of a pipeline do not take the cores
 * from those of the part that runs after it.
 */
const PART_SPIN_DURATION_US = 50;
const WARM_UP_RUNS = 2;

/** The root or a further node of an open model. */
export interface LoadedPart {
  /** `root`, or the node's name. */
  readonly name: string;
  readonly model: string;
  readonly version: number;
  readonly variant: Variant;
  readonly session: Session;
  /** What the last of its warming runs took, in milliseconds; undefined where its inputs cannot be made up. */
  readonly warmRunMs: number | undefined;
}

/** An open, warm model in this thread. Its runs block the thread: see `ModelWorker` where that matters. */
export interface LoadedModel {
  readonly package: ModelPackage;
  readonly manifest: Manifest;
  /** Of the root. */
  readonly variant: Variant;
  readonly executionProvider: string;
  /** Of the root. */
  readonly session: Session;
  /** The root, then the nodes of a pipeline in the manifest's order. */
  readonly parts: readonly LoadedPart[];
  readonly baseline: Baseline | undefined;
  predict(frame: Frame, stream?: string): Promise<Prediction>;
  /** Several frames of one stream, in one run where the graph allows it; a pipeline takes them one after the other. */
  predictBatch(frames: readonly Frame[], stream?: string): Promise<BatchItem[]>;
  /** The feeds of the root. */
  prepare(frame: Frame, stream?: string): Promise<PreparedFrame>;
  /** Runs the graph of one part as it is; the root's by default. */
  runTensors(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
    node?: string,
  ): Promise<Record<string, Tensor>>;
  /** Forgets what a stream (all of them by default) carries: call it where its frames come from something else. */
  resetStream(stream?: string): void;
  /** After the last run, and before the process or thread ends. */
  release(): Promise<void>;
}

/**
 * Opens one variant of every part of a package: our own check of the graph first, then ONNX Runtime by path, signature against the
 * manifest, warm-up. Between these steps the thread is given up.
 * @throws FieldloopError `package_incompatible`, an `onnx_*` code, `model_load_failed`, `manifest_invalid` where inputs,
 * heads or nodes name what a graph does not have
 */
export async function openModel(pkg: ModelPackage, options: OpenModelOptions): Promise<LoadedModel> {
  const { manifest } = pkg;
  const executionProvider = options.executionProvider ?? "cpu";
  const baseline = manifest.baseline && decodeBaseline(await readFile(join(pkg.dir, manifest.baseline.file)));
  await giveUp(options);
  const parts = await openParts(pkg, executionProvider, options);
  const [root] = parts;
  const now = options.now ?? (() => performance.now());
  const { session, variant } = root;
  const predictor = new Predictor({
    manifest,
    session,
    sizeImage: prepareImage,
    now,
    ...(baseline === undefined ? {} : { baseline }),
  });
  const common = { package: pkg, manifest, variant, executionProvider, session, parts, baseline };
  const shared = {
    ...common,
    prepare: (frame: Frame, stream?: string) => predictor.prepare(frame, stream),
    runTensors: async (
      feeds: Readonly<Record<string, Tensor>>,
      fetches?: readonly string[],
      node: string = ROOT_NODE,
    ) => partOf(parts, node).session.run(feeds, fetches),
    release: () => releaseAll(parts),
  };
  if (manifest.nodes.length === 0) {
    return {
      ...shared,
      predict: (frame, stream) => predictor.predict(frame, stream),
      predictBatch: (frames, stream) => predictor.predictBatch(frames, stream),
      resetStream: (stream) => predictor.resetStream(stream),
    };
  }
  const pipeline = new Pipeline({
    manifest,
    root: predictor,
    sessions: new Map(parts.map((part) => [part.name, part.session])),
    sizeImage: prepareImage,
    decodeImage,
    now,
    ...(baseline === undefined ? {} : { baseline }),
  });
  return {
    ...shared,
    predict: (frame, stream) => pipeline.predict(frame, stream),
    predictBatch: (frames, stream) => pipeline.predictBatch(frames, stream),
    resetStream: (stream) => pipeline.resetStream(stream),
  };
}

type LoadedParts = readonly [LoadedPart, ...LoadedPart[]];

/** All of them, or none: what was open already is released where a later part fails. */
async function openParts(
  pkg: ModelPackage,
  executionProvider: string,
  options: OpenModelOptions,
): Promise<LoadedParts> {
  const opened: LoadedPart[] = [];
  const [root, ...nodes] = pipelineParts(pkg.manifest);
  try {
    const first = await openPart(pkg, root!, executionProvider, options);
    opened.push(first);
    for (const node of nodes) opened.push(await openPart(pkg, node, executionProvider, options));
    return [first, ...opened.slice(1)];
  } catch (error) {
    await releaseAll(opened);
    throw error;
  }
}

async function openPart(
  pkg: ModelPackage,
  part: PipelinePart,
  executionProvider: string,
  options: OpenModelOptions,
): Promise<LoadedPart> {
  const { manifest } = pkg;
  const { name, model, version } = part;
  const variant = findVariant(part, options.variant);
  const path = join(pkg.dir, variant.file);
  checkModel(await readFile(path));
  await giveUp(options);
  const backend = await backendFor(executionProvider);
  const spinDurationUs = manifest.nodes.length === 0 ? DEFAULT_SPIN_DURATION_US : PART_SPIN_DURATION_US;
  const session = await backend.openSession(path, {
    threadCount: options.threadCount,
    executionProvider,
    spinDurationUs: options.spinDurationUs ?? spinDurationUs,
  });
  try {
    await giveUp(options);
    checkSignature(part, wantedOutputs(manifest, name), session);
    const warmRunMs = await warmUp(part, session, options);
    return { name, model, version, variant, session, warmRunMs };
  } catch (error) {
    await session.release();
    throw error;
  }
}

/** Lets others of this thread go on. */
async function giveUp({ stepPauseMs = 0 }: OpenModelOptions): Promise<void> {
  await (stepPauseMs > 0 ? sleep(stepPauseMs) : nextTurn());
}

async function releaseAll(parts: readonly LoadedPart[]): Promise<void> {
  for (const { session } of parts) await session.release();
}

function partOf(parts: LoadedParts, name: string): LoadedPart {
  const part = parts.find((candidate) => candidate.name === name);
  if (part !== undefined) return part;
  const known = parts.map((candidate) => candidate.name).join(", ");
  throw new FieldloopError("not_found", `Run model: no node "${name}", the package has ${known}`);
}

function findVariant(part: PipelinePart, name: string | undefined): Variant {
  const variant = part.variants.find((candidate) => candidate.name === name);
  if (variant !== undefined) return variant;
  if (name === undefined || part.name !== ROOT_NODE) return chooseVariant(part, hostFacts());
  const known = part.variants.map((candidate) => candidate.name).join(", ");
  throw new FieldloopError("not_found", `Open model: no variant "${name}", the package has ${known}`);
}

/** The graph must have the inputs and outputs that the manifest speaks of, and no input beyond them. */
function checkSignature(part: PipelinePart, wanted: readonly string[], session: Session): void {
  const what = part.name === ROOT_NODE ? "Open model" : `Open node "${part.name}"`;
  const declared = new Set(part.inputs.map((input) => input.name));
  const given = new Set(session.inputs.map((input) => input.name));
  const outputs = new Set(session.outputs.map((output) => output.name));
  const list = (names: Iterable<string>): string => [...names].map((name) => `"${name}"`).join(", ");
  for (const name of declared) {
    if (given.has(name)) continue;
    throw new FieldloopError("manifest_invalid", `${what}: no input "${name}", the graph has ${list(given)}`);
  }
  for (const name of given) {
    if (declared.has(name)) continue;
    throw new FieldloopError(
      "manifest_invalid",
      `${what}: the graph wants input "${name}", not in the manifest`,
    );
  }
  const carried = part.inputs.flatMap((input) => (input.kind === "state" ? [input.output] : []));
  for (const name of [...wanted, ...carried]) {
    if (outputs.has(name)) continue;
    throw new FieldloopError(
      "manifest_invalid",
      `${what}: no output "${name}", the graph has ${list(outputs)}`,
    );
  }
}

/**
 * The first runs take up to three times as long as later ones. A graph that refuses zeros is found out here.
 * @returns milliseconds of the last run
 */
async function warmUp(
  part: PipelinePart,
  session: Session,
  options: OpenModelOptions,
): Promise<number | undefined> {
  const feeds = zeroFeeds(part.inputs);
  if (feeds === undefined) return undefined;
  let begin = 0;
  for (let run = 0; run < WARM_UP_RUNS; run++) {
    await giveUp(options);
    begin = performance.now();
    await session.run(feeds);
  }
  return performance.now() - begin;
}
