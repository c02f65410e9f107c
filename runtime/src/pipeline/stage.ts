import { FieldloopError, type Manifest, type PipelineNode } from "@fieldloop/protocol";
import type { Session, Tensor } from "../backend.js";
import { readHeads } from "../heads/read.js";
import type { HeadResult } from "../heads/result.js";
import { BatchRunner } from "../input/batch.js";
import { batchFramesMax } from "../input/extent.js";
import { IDENTITY_GEOMETRY, type Frame, type Geometry, type PreparedFrame } from "../input/frame.js";
import { FramePreparer, type ImageSizer } from "../input/prepare.js";
import { StreamState } from "../input/stream.js";
import { Predictor } from "../predict.js";
import type { Baseline } from "../profile/baseline.js";
import { boxesToCut, composeGeometry, cropBox, cropClasses } from "./crop.js";
import { handedOn, wantedOutputs } from "./graph.js";

type Tensors = Readonly<Record<string, Tensor>>;

/** Crops or sets of tensors in one run at most, fewer where each is large: bounds the memory of a frame with many boxes. */
export const PIPELINE_BATCH_MAX = 32;

/** One result of one part of a pipeline, with what further parts take of it. */
export interface Instance {
  readonly outputs: Tensors;
  readonly heads: readonly HeadResult[];
  /** Where the part's input lies in the source image. */
  readonly geometry: Geometry;
  readonly crop?: number;
  /** The root is no one's child, and a node that is fed with the frame has no parent. */
  readonly parent?: Instance;
  readonly latencyMs: number;
}

export interface StageOptions {
  readonly manifest: Manifest;
  readonly node: PipelineNode;
  readonly session: Session;
  readonly sizeImage: ImageSizer;
  /** Of the package: what anomalies by embedding are measured against. */
  readonly baseline?: Baseline | undefined;
  readonly now: () => number;
}

/** What a stage is about to run: feeds and where they come from. */
interface Item {
  readonly prepared: PreparedFrame;
  readonly geometry: Geometry;
  readonly parent: Instance;
  readonly crop?: number;
}

/** Prepares one item; undefined where there is nothing to see in it. */
type Take = () => Promise<Item | undefined>;

/** One node of a pipeline over its session. */
export class Stage {
  readonly node: PipelineNode;
  readonly #session: Session;
  readonly #now: () => number;
  readonly #fetches: readonly string[];
  readonly #handedOn: readonly string[];
  /** Class numbers of the boxes to cut; undefined: of all. */
  readonly #cropClasses: ReadonlySet<number> | undefined;
  readonly #preparer: FramePreparer;
  readonly #batches: BatchRunner;
  readonly #batchMax: number;
  /** Only where frames follow one another: fed with the frame itself, or with state to carry. */
  readonly #predictor: Predictor | undefined;
  readonly #nothingBefore = new StreamState();
  readonly #baseline: Baseline | undefined;

  constructor({ manifest, node, session, sizeImage, baseline, now }: StageOptions) {
    this.node = node;
    this.#session = session;
    this.#baseline = baseline;
    this.#now = now;
    this.#fetches = wantedOutputs(manifest, node.name);
    this.#handedOn = handedOn(manifest, node.name);
    this.#cropClasses = cropClasses(manifest, node);
    this.#preparer = new FramePreparer(node, sizeImage);
    this.#batches = new BatchRunner(session, node.inputs, this.#fetches);
    this.#batchMax = batchFramesMax(node.inputs, PIPELINE_BATCH_MAX);
    const follows = node.from.kind === "frame" || node.inputs.some(({ kind }) => kind === "state");
    this.#predictor = follows
      ? new Predictor({
          manifest: { ...node, signals: [] },
          session,
          sizeImage,
          now,
          ...(baseline === undefined ? {} : { baseline }),
        })
      : undefined;
  }

  /**
   * Runs the node for each of the instances that it takes something of.
   * @param frame what the source gave, decoded where it is an image
   */
  async run(frame: Frame, parents: readonly Instance[], stream: string): Promise<Instance[]> {
    const { from } = this.node;
    switch (from.kind) {
      case "frame":
        return this.#follow(frame, stream);
      case "tensors":
        return this.#predictor === undefined
          ? this.#runItems(() => this.#takeTensors(from.tensors, parents))
          : this.#followTensors(from.tensors, parents, stream);
      case "crop":
        return this.#runItems(() => this.#takeCrops(from, frame, parents));
    }
  }

  /** The frame is not for this node: what it carries from frame to frame starts anew, the samples it looks back on go on. */
  async passOver(frame: Frame, stream: string): Promise<void> {
    if (this.#predictor === undefined) return;
    if (this.node.from.kind === "frame") await this.#predictor.passOver(frame, stream);
    else this.#predictor.resetStream(stream);
  }

  resetStream(stream?: string): void {
    this.#predictor?.resetStream(stream);
  }

  async #follow(frame: Frame, stream: string, parent?: Instance): Promise<Instance[]> {
    const start = this.#now();
    const detailed = await this.#predictor!.predictWith(frame, { stream, alsoFetch: this.#handedOn });
    const { prediction, outputs, prepared } = detailed;
    const geometry = parent?.geometry ?? prepared.geometry;
    const heads =
      parent === undefined || parent.geometry === IDENTITY_GEOMETRY
        ? prediction.heads
        : readHeads(this.node, outputs, prepared.feeds, geometry, this.#baseline);
    this.#predictor!.recycle(prepared);
    const latencyMs = this.#now() - start;
    return [{ outputs, heads, geometry, latencyMs, ...(parent === undefined ? {} : { parent }) }];
  }

  async #followTensors(
    tensors: Readonly<Record<string, string>>,
    parents: readonly Instance[],
    stream: string,
  ): Promise<Instance[]> {
    if (parents.length > 1) {
      throw new FieldloopError(
        "invalid_argument",
        `Carry state: it goes from frame to frame, and this frame has ${parents.length} results to take`,
      );
    }
    const parent = parents[0]!;
    const feeds = this.#feedsFrom(tensors, parent);
    return this.#follow({ kind: "tensors", feeds }, stream, parent);
  }

  #feedsFrom(tensors: Readonly<Record<string, string>>, parent: Instance): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [input, output] of Object.entries(tensors)) feeds[input] = parent.outputs[output]!;
    return feeds;
  }

  /** Each of them yet to be prepared: at most a batch of them lies in memory at a time. */
  #takeTensors(tensors: Readonly<Record<string, string>>, parents: readonly Instance[]): Take[] {
    return parents.map((parent) => async () => {
      const feeds = this.#feedsFrom(tensors, parent);
      const prepared = await this.#preparer.prepare({ kind: "tensors", feeds }, this.#nothingBefore);
      return { prepared, geometry: parent.geometry, parent };
    });
  }

  #takeCrops(
    from: Extract<PipelineNode["from"], { kind: "crop" }>,
    frame: Frame,
    parents: readonly Instance[],
  ): Take[] {
    if (frame.kind !== "pixels") {
      throw new FieldloopError(
        "invalid_argument",
        `Cut crops: the frame is of kind "${frame.kind}", wanted an image`,
      );
    }
    return boxesToCut(from, this.#cropClasses, parents).map(({ box, crop, parent }) => async () => {
      const cut = cropBox(frame, box, from.margin);
      if (cut === undefined) return undefined;
      const prepared = await this.#preparer.prepare(cut.frame, this.#nothingBefore);
      return { prepared, geometry: composeGeometry(prepared.geometry, cut.geometry), parent, crop };
    });
  }

  async #runItems(take: () => readonly Take[]): Promise<Instance[]> {
    const start = this.#now();
    const all = take();
    const instances: Omit<Instance, "latencyMs">[] = [];
    for (let at = 0; at < all.length; at += this.#batchMax) {
      const taken = await Promise.all(all.slice(at, at + this.#batchMax).map((one) => one()));
      const items = taken.filter((item) => item !== undefined);
      const outputs = await this.#runFeeds(items.map(({ prepared }) => prepared.feeds));
      items.forEach((item, index) => instances.push(this.#read(item, outputs[index]!)));
    }
    const latencyMs = (this.#now() - start) / Math.max(instances.length, 1);
    return instances.map((instance) => ({ ...instance, latencyMs }));
  }

  #read({ prepared, geometry, parent, crop }: Item, outputs: Tensors): Omit<Instance, "latencyMs"> {
    const heads = readHeads(this.node, outputs, prepared.feeds, geometry, this.#baseline);
    this.#preparer.recycle(prepared);
    return { outputs, heads, geometry, parent, ...(crop === undefined ? {} : { crop }) };
  }

  /** In one run where the graph is known to keep its items apart, else one by one. */
  async #runFeeds(all: readonly Tensors[]): Promise<Tensors[]> {
    const together = all.length > 1 ? await this.#batches.run(all) : undefined;
    if (together !== undefined) return together;
    const outputs: Tensors[] = [];
    for (const feeds of all) outputs.push(await this.#session.run(feeds, this.#fetches));
    return outputs;
  }
}
