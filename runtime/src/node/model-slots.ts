import { FieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { checkGolden } from "./golden.js";
import { openModel, type LoadedModel } from "./model.js";
import { openPackage } from "./package.js";
import { toWireBatchItem, type LoadedInfo, type WorkerRequest } from "./worker-messages.js";

/** Of single frames that follow on nothing. No source has this name. */
const FRAME_STREAM = "single frame";

/** Open models by slot, and the answer to each request of a {@link ModelWorker}: one after the other, in their order. */
export class ModelSlots {
  readonly #slots = new Map<string, LoadedModel>();
  #tail: Promise<unknown> = Promise.resolve();

  /** What the request asks for, after everything that was asked before it. */
  answer(request: WorkerRequest): Promise<unknown> {
    const answer = this.#tail.then(() => this.#handle(request));
    this.#tail = answer.catch(() => undefined);
    return answer;
  }

  async #handle(request: WorkerRequest): Promise<unknown> {
    switch (request.kind) {
      case "load":
        return this.#load(request);
      case "predict":
        return this.#modelIn(request.slot).predict(request.frame, request.stream);
      case "predictBatch": {
        const items = await this.#modelIn(request.slot).predictBatch(request.frames, request.stream);
        return items.map(toWireBatchItem);
      }
      case "run":
        return this.#modelIn(request.slot).runTensors(request.feeds, request.fetches);
      case "runFrame":
        return this.#runFrame(request);
      case "checkGolden":
        return checkGolden(this.#modelIn(request.slot));
      case "resetStream":
        return this.#modelIn(request.slot).resetStream(request.stream);
      case "unload":
        return this.#unload(request.slot);
      case "stop":
        for (const slot of this.#slots.keys()) await this.#unload(slot);
        return undefined;
    }
  }

  /** Opens the new model before the old one of the slot goes, so that a package that does not open changes nothing. */
  async #load(request: Extract<WorkerRequest, { kind: "load" }>): Promise<LoadedInfo> {
    const { slot, packageDir, options } = request;
    const { verifyFiles, ...modelOptions } = options;
    const pkg = await openPackage(packageDir, {
      purpose: "running",
      ...(verifyFiles === undefined ? {} : { verifyFiles }),
    });
    const model = await openModel(pkg, modelOptions);
    const old = this.#slots.get(slot);
    this.#slots.set(slot, model);
    await old?.release();
    const { manifest, variant, executionProvider, session } = model;
    const { inputs, outputs } = session;
    const { packageSha256 } = pkg;
    // NaN where one is not known.
    const warm = model.parts.reduce((sum, { warmRunMs }) => sum + (warmRunMs ?? Number.NaN), 0);
    const warmRunMs = Number.isNaN(warm) ? undefined : warm;
    return { manifest, variant, executionProvider, packageSha256, inputs, outputs, warmRunMs };
  }

  /** In a stream of its own that ends with it. */
  async #runFrame(request: Extract<WorkerRequest, { kind: "runFrame" }>): Promise<Record<string, Tensor>> {
    const model = this.#modelIn(request.slot);
    try {
      const { feeds } = await model.prepare(request.frame, FRAME_STREAM);
      return await model.runTensors(feeds, request.fetches);
    } finally {
      model.resetStream(FRAME_STREAM);
    }
  }

  async #unload(slot: string): Promise<void> {
    const model = this.#slots.get(slot);
    this.#slots.delete(slot);
    await model?.release();
  }

  #modelIn(slot: string): LoadedModel {
    const model = this.#slots.get(slot);
    if (model === undefined) throw new FieldloopError("not_found", `Use model: slot "${slot}" is empty`);
    return model;
  }
}
