import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { toFieldloopError, type Manifest } from "@fieldloop/protocol";
import {
  decodeBaseline,
  type Baseline,
  type BatchItem,
  type Frame,
  type Tensor,
  type TensorInfo,
} from "@fieldloop/runtime";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { PackageToRun, ProviderToRun, SelfTest } from "../ipc.js";
import { carries, openBeside, type Opened, openPlaced, type PlacementOptions, SLOT } from "./placement.js";

interface Loaded {
  readonly opened: Opened;
  /** Opens the same in a thread of its own. */
  readonly openBeside: () => Promise<Opened>;
  readonly manifest: Manifest;
  readonly variant: string;
  readonly executionProvider: string;
  readonly providerShares: Readonly<Record<string, number>> | undefined;
  readonly packageSha256: string;
  readonly baseline: Baseline | undefined;
  readonly loadMs: number;
  readonly threadCount: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

/** Frames, and inferences that programs asked for; how long the fastest of them took, milliseconds. */
export interface RunsTaken {
  readonly frames: number;
  readonly fastestMs: number;
}

const NO_RUNS: RunsTaken = { frames: 0, fastestMs: Number.POSITIVE_INFINITY };

export type HostModelOptions = Pick<
  PlacementOptions,
  "threadCount" | "runMsMax" | "carryingRunMsMax" | "isBusy"
>;

/**
 * An open model in a worker thread of its own, so that loading one never blocks the runs of another. A small one of short runs runs in the
 * host's own: without the hops, and without the memory of another JavaScript heap. Serves several lanes.
 */
export class HostModel {
  readonly origin: PredictionOrigin;
  readonly manifest: Manifest;
  readonly variant: string;
  readonly executionProvider: string;
  /** Share of the graph's nodes that each execution provider runs; undefined where nobody knows. */
  readonly providerShares: Readonly<Record<string, number>> | undefined;
  readonly baseline: Baseline | undefined;
  readonly loadMs: number;
  readonly threadCount: number;
  /** Of the graph itself. */
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Milliseconds of a run when it was opened. */
  readonly warmRunMs: number;
  /** What it says of a frame hangs on the frames before. */
  readonly carries: boolean;
  readonly #openBeside: Loaded["openBeside"];
  #opened: Opened;
  #moving: Promise<void> | undefined;
  #runs: RunsTaken = NO_RUNS;

  private constructor(loaded: Loaded) {
    const { manifest, packageSha256, opened } = loaded;
    const { model, version, signals } = manifest;
    this.#opened = opened;
    this.#openBeside = loaded.openBeside;
    this.warmRunMs = opened.info.warmRunMs ?? 0;
    this.carries = carries(manifest);
    this.manifest = manifest;
    this.origin = { model, version, packageSha256, signalNames: signals };
    this.variant = loaded.variant;
    this.executionProvider = loaded.executionProvider;
    this.providerShares = loaded.providerShares;
    this.baseline = loaded.baseline;
    this.loadMs = loaded.loadMs;
    this.threadCount = loaded.threadCount;
    this.inputs = loaded.inputs;
    this.outputs = loaded.outputs;
  }

  /**
   * Opens and warms, on the CPU with the variant that suits it best unless `provider` says otherwise.
   * @throws FieldloopError `package_*`, `onnx_*`, `model_load_failed`, `manifest_invalid`, `provider_unavailable`
   */
  static async load(
    target: PackageToRun,
    options: HostModelOptions,
    provider?: ProviderToRun,
  ): Promise<HostModel> {
    const begin = performance.now();
    const chosen = provider && {
      executionProvider: provider.executionProvider,
      variant: provider.variant,
    };
    const { threadCount } = options;
    const opened = await openPlaced(target.directory, { ...options, ...chosen });
    const { worker, info } = opened;
    try {
      const { manifest, packageSha256, executionProvider } = info;
      const baseline =
        manifest.baseline &&
        decodeBaseline(new Uint8Array(await readFile(join(target.directory, manifest.baseline.file))));
      return new HostModel({
        opened,
        openBeside: () => openBeside(target.directory, { threadCount, ...chosen }),
        manifest,
        variant: info.variant.name,
        executionProvider,
        // The library's own kernels run all of it where nothing else was asked for.
        providerShares: provider ? provider.shares : { [executionProvider]: 1 },
        packageSha256,
        baseline,
        loadMs: performance.now() - begin,
        threadCount,
        inputs: info.inputs,
        outputs: info.outputs,
      });
    } catch (error) {
      await worker.stop();
      throw error;
    }
  }

  /** In the host's own thread. */
  get isHere(): boolean {
    return this.#opened.isHere;
  }

  /** What it ran since the call before. */
  takeRuns(): RunsTaken {
    const runs = this.#runs;
    this.#runs = NO_RUNS;
    return runs;
  }

  /**
   * To a thread of its own, between two runs. What it carries of its streams begins anew. @throws FieldloopError as {@link load}, with all
   * as it was
   */
  moveBeside(): Promise<void> {
    this.#moving ??= this.#moveBeside().finally(() => {
      this.#moving = undefined;
    });
    return this.#moving;
  }

  async #moveBeside(): Promise<void> {
    const here = this.#opened;
    if (!here.isHere) return;
    this.#opened = await this.#openBeside();
    await here.worker.stop();
  }

  /**
   * Frames of one stream, together where there are several; `fresh` where the first of them follows on nothing. They are copied: the
   * sampler may still want them. Never rejects.
   */
  async predict(frames: readonly Frame[], stream: string, fresh: boolean): Promise<readonly BatchItem[]> {
    const options = { keep: true, stream };
    const worker = this.#opened.worker;
    const begin = performance.now();
    try {
      // Both are asked at once: whoever stops a thread lets it finish what it was asked before.
      const reset = fresh ? worker.resetStream(SLOT, stream) : undefined;
      const items =
        frames.length > 1
          ? worker.predictBatch(SLOT, frames, options)
          : worker
              .predict(SLOT, frames[0]!, options)
              .then((prediction): readonly BatchItem[] => [{ ok: true, prediction }]);
      const [, answered] = await Promise.all([reset, items]);
      this.#ran(frames.length, begin);
      return answered;
    } catch (error) {
      const coded = toFieldloopError(error);
      return frames.map(() => ({ ok: false, error: coded }));
    }
  }

  /** The graph itself, on tensors as they are. @throws FieldloopError `tensor_invalid`, `model_run_failed` */
  async runTensors(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    const begin = performance.now();
    const outputs = await this.#opened.worker.runTensors(SLOT, feeds, fetches);
    this.#ran(1, begin);
    return outputs;
  }

  /** The graph on an image file, made ready as the manifest says. @throws FieldloopError as {@link runTensors}, and those of images */
  async runImage(bytes: Uint8Array, fetches?: readonly string[]): Promise<Record<string, Tensor>> {
    const begin = performance.now();
    const outputs = await this.#opened.worker.runFrame(SLOT, { kind: "encoded", bytes }, fetches);
    this.#ran(1, begin);
    return outputs;
  }

  #ran(count: number, begin: number): void {
    const { frames, fastestMs } = this.#runs;
    const tookMs = (performance.now() - begin) / count;
    this.#runs = { frames: frames + count, fastestMs: Math.min(fastestMs, tookMs) };
  }

  /** @throws FieldloopError `golden_case_failed`, `model_run_failed` */
  async selfTest(): Promise<SelfTest> {
    const report = await this.#opened.worker.checkGolden(SLOT);
    return {
      variant: this.variant,
      executionProvider: this.executionProvider,
      goldenCases: report.cases,
      differenceMax: report.worstAbsoluteError,
      loadMs: Math.round(this.loadMs),
      residentBytes: process.memoryUsage.rss(),
      ...(report.runMs === undefined ? {} : { runMs: report.runMs }),
    };
  }

  /** After the last run. */
  async close(): Promise<void> {
    await this.#moving?.catch(() => undefined);
    await this.#opened.worker.stop();
  }
}
