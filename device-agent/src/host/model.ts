import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeBaseline, type Baseline, type Frame, type Prediction } from "@fieldloop/runtime";
import { ModelWorker } from "@fieldloop/runtime/node";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { PackageToRun, SelfTest } from "../ipc.js";

const SLOT = "model";

/** An open model in a worker thread of its own, so that loading one never blocks the runs of another. */
export class HostModel {
  readonly origin: PredictionOrigin;
  readonly variant: string;
  readonly executionProvider: string;
  readonly baseline: Baseline | undefined;
  readonly loadMs: number;
  readonly #worker: ModelWorker;

  private constructor(
    worker: ModelWorker,
    origin: PredictionOrigin,
    variant: string,
    executionProvider: string,
    baseline: Baseline | undefined,
    loadMs: number,
  ) {
    this.#worker = worker;
    this.origin = origin;
    this.variant = variant;
    this.executionProvider = executionProvider;
    this.baseline = baseline;
    this.loadMs = loadMs;
  }

  /** Opens and warms. @throws FieldloopError `package_*`, `onnx_*`, `model_load_failed`, `manifest_invalid` */
  static async load(target: PackageToRun, threadCount: number): Promise<HostModel> {
    const begin = performance.now();
    const worker = new ModelWorker();
    await worker.start();
    try {
      const { manifest, variant, executionProvider, packageSha256 } = await worker.load(
        SLOT,
        target.directory,
        { threadCount },
      );
      const baseline =
        manifest.baseline &&
        decodeBaseline(new Uint8Array(await readFile(join(target.directory, manifest.baseline.file))));
      const { model, version, signals } = manifest;
      const origin = { model, version, packageSha256, signalNames: signals };
      const loadMs = performance.now() - begin;
      return new HostModel(worker, origin, variant.name, executionProvider, baseline, loadMs);
    } catch (error) {
      await worker.stop();
      throw error;
    }
  }

  /** The frame is copied: the sampler may still want it. */
  predict(frame: Frame): Promise<Prediction> {
    return this.#worker.predict(SLOT, frame, { keep: true });
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
    };
  }

  /** After the last run. */
  async close(): Promise<void> {
    await this.#worker.stop();
  }
}
