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
import type { ModelWorker } from "@fieldloop/runtime/node";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { PackageToRun, ProviderToRun, SelfTest } from "../ipc.js";
import { openPlaced, type PlacementOptions, SLOT } from "./placement.js";

interface Loaded {
  readonly worker: ModelWorker;
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

export type HostModelOptions = Pick<PlacementOptions, "threadCount" | "runMsMax" | "isBusy">;

/**
 * An open model in a worker thread of its own, so that loading one never blocks the runs of another. A small one whose runs are over
 * before a thread would wake up runs in the host's own: without the hops, and without the memory of another JavaScript heap. Serves
 * several lanes.
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
  readonly #worker: ModelWorker;

  private constructor(loaded: Loaded) {
    const { manifest, packageSha256 } = loaded;
    const { model, version, signals } = manifest;
    this.#worker = loaded.worker;
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
    const { worker, info } = await openPlaced(target.directory, { ...options, ...chosen });
    try {
      const { manifest, packageSha256, executionProvider } = info;
      const baseline =
        manifest.baseline &&
        decodeBaseline(new Uint8Array(await readFile(join(target.directory, manifest.baseline.file))));
      return new HostModel({
        worker,
        manifest,
        variant: info.variant.name,
        executionProvider,
        // The library's own kernels run all of it where nothing else was asked for.
        providerShares: provider ? provider.shares : { [executionProvider]: 1 },
        packageSha256,
        baseline,
        loadMs: performance.now() - begin,
        threadCount: options.threadCount,
        inputs: info.inputs,
        outputs: info.outputs,
      });
    } catch (error) {
      await worker.stop();
      throw error;
    }
  }

  /**
   * Frames of one stream, together where there are several; `fresh` where the first of them follows on nothing. They are copied: the
   * sampler may still want them. Never rejects.
   */
  async predict(frames: readonly Frame[], stream: string, fresh: boolean): Promise<readonly BatchItem[]> {
    const options = { keep: true, stream };
    try {
      if (fresh) await this.#worker.resetStream(SLOT, stream);
      if (frames.length > 1) return await this.#worker.predictBatch(SLOT, frames, options);
      return [{ ok: true, prediction: await this.#worker.predict(SLOT, frames[0]!, options) }];
    } catch (error) {
      const coded = toFieldloopError(error);
      return frames.map(() => ({ ok: false, error: coded }));
    }
  }

  /** The graph itself, on tensors as they are. @throws FieldloopError `tensor_invalid`, `model_run_failed` */
  runTensors(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    return this.#worker.runTensors(SLOT, feeds, fetches);
  }

  /** The graph on an image file, made ready as the manifest says. @throws FieldloopError as {@link runTensors}, and those of images */
  runImage(bytes: Uint8Array, fetches?: readonly string[]): Promise<Record<string, Tensor>> {
    return this.#worker.runFrame(SLOT, { kind: "encoded", bytes }, fetches);
  }

  /** @throws FieldloopError `golden_case_failed`, `model_run_failed` */
  async selfTest(): Promise<SelfTest> {
    const report = await this.#worker.checkGolden(SLOT);
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
    await this.#worker.stop();
  }
}
