import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, type Manifest, type Variant } from "@fieldloop/protocol";
import type { Session, Tensor } from "../backend.js";
import { headOutputs } from "../heads/read.js";
import type { Frame, PreparedFrame } from "../input/frame.js";
import { zeroFeeds } from "../input/prepare.js";
import { checkModel } from "../onnx/check.js";
import { chooseVariant } from "../package/variant.js";
import { Predictor, type Prediction } from "../predict.js";
import { decodeBaseline, type Baseline } from "../profile/baseline.js";
import { backendFor } from "./backends.js";
import { hostFacts } from "./facts.js";
import { prepareImage } from "./image.js";
import type { ModelPackage } from "./package.js";

export interface OpenModelOptions {
  /** Name of a variant; the one that suits this machine best by default. */
  readonly variant?: string;
  readonly executionProvider?: string;
  /** Threads inside one operator: the sum over all sessions of a process must not exceed its cores. */
  readonly threadCount: number;
  /** Microseconds a thread spins after a run before it sleeps. Default 500. */
  readonly spinDurationUs?: number;
  /** Milliseconds of a monotonic clock; `performance.now` by default. */
  readonly now?: () => number;
}

/** At camera rates this saves most of the spinning that ONNX Runtime does by default, and costs no latency. */
export const DEFAULT_SPIN_DURATION_US = 500;
const WARM_UP_RUNS = 2;

/** An open, warm model in this thread. Its runs block the thread: see `ModelWorker` where that matters. */
export interface LoadedModel {
  readonly package: ModelPackage;
  readonly manifest: Manifest;
  readonly variant: Variant;
  readonly executionProvider: string;
  readonly session: Session;
  readonly baseline: Baseline | undefined;
  predict(frame: Frame): Promise<Prediction>;
  prepare(frame: Frame): Promise<PreparedFrame>;
  runTensors(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>>;
  /** Forgets the last classes: call it where the stream of frames is another one. */
  resetStream(): void;
  /** After the last run, and before the process or thread ends. */
  release(): Promise<void>;
}

/**
 * Opens one variant of a package: our own check of the graph first, then ONNX Runtime by path, signature against the
 * manifest, warm-up.
 * @throws FieldloopError `package_incompatible`, an `onnx_*` code, `model_load_failed`, `manifest_invalid` where inputs or
 * heads name what the graph does not have
 */
export async function openModel(pkg: ModelPackage, options: OpenModelOptions): Promise<LoadedModel> {
  const { manifest } = pkg;
  const executionProvider = options.executionProvider ?? "cpu";
  const variant = findVariant(pkg, options.variant);
  const path = join(pkg.dir, variant.file);
  checkModel(await readFile(path));
  const baseline = manifest.baseline && decodeBaseline(await readFile(join(pkg.dir, manifest.baseline.file)));
  const backend = await backendFor(executionProvider);
  const session = await backend.openSession(path, {
    threadCount: options.threadCount,
    executionProvider,
    spinDurationUs: options.spinDurationUs ?? DEFAULT_SPIN_DURATION_US,
  });
  try {
    checkSignature(manifest, session);
    await warmUp(manifest, session);
  } catch (error) {
    await session.release();
    throw error;
  }
  const predictor = new Predictor({
    manifest,
    session,
    sizeImage: prepareImage,
    now: options.now ?? (() => performance.now()),
    ...(baseline === undefined ? {} : { baseline }),
  });
  return {
    package: pkg,
    manifest,
    variant,
    executionProvider,
    session,
    baseline,
    predict: (frame) => predictor.predict(frame),
    prepare: (frame) => predictor.prepare(frame),
    runTensors: (feeds, fetches) => predictor.runTensors(feeds, fetches),
    resetStream: () => predictor.resetStream(),
    release: () => session.release(),
  };
}

function findVariant(pkg: ModelPackage, name: string | undefined): Variant {
  if (name === undefined) return chooseVariant(pkg.manifest, hostFacts());
  const variant = pkg.manifest.variants.find((candidate) => candidate.name === name);
  if (variant !== undefined) return variant;
  const known = pkg.manifest.variants.map((candidate) => candidate.name).join(", ");
  throw new FieldloopError("not_found", `Open model: no variant "${name}", the package has ${known}`);
}

/** The graph must have the inputs and outputs that the manifest speaks of, and no input beyond them. */
function checkSignature(manifest: Manifest, session: Session): void {
  const declared = new Set(manifest.inputs.map((input) => input.name));
  const given = new Set(session.inputs.map((input) => input.name));
  const outputs = new Set(session.outputs.map((output) => output.name));
  const list = (names: Iterable<string>): string => [...names].map((name) => `"${name}"`).join(", ");
  for (const name of declared) {
    if (given.has(name)) continue;
    throw new FieldloopError(
      "manifest_invalid",
      `Open model: no input "${name}", the graph has ${list(given)}`,
    );
  }
  for (const name of given) {
    if (declared.has(name)) continue;
    throw new FieldloopError(
      "manifest_invalid",
      `Open model: the graph wants input "${name}", not in the manifest`,
    );
  }
  for (const name of headOutputs(manifest.heads)) {
    if (outputs.has(name)) continue;
    throw new FieldloopError(
      "manifest_invalid",
      `Open model: no output "${name}", the graph has ${list(outputs)}`,
    );
  }
}

/** The first runs take up to three times as long as later ones. A graph that refuses zeros is found out here. */
async function warmUp(manifest: Manifest, session: Session): Promise<void> {
  const feeds = zeroFeeds(manifest.inputs);
  if (feeds === undefined) return;
  for (let run = 0; run < WARM_UP_RUNS; run++) await session.run(feeds);
}
