import {
  FieldloopError,
  ROOT_NODE,
  decidingHeadOf,
  toFieldloopError,
  type Manifest,
} from "@fieldloop/protocol";
import type { Session } from "../backend.js";
import { NO_LABEL, type HeadResult } from "../heads/result.js";
import type { EncodedFrame, Frame, PixelFrame } from "../input/frame.js";
import type { ImageSizer } from "../input/prepare.js";
import { MAIN_STREAM, StreamTable } from "../input/stream.js";
import type { BatchItem, Prediction, Predictor } from "../predict.js";
import type { Baseline } from "../profile/baseline.js";
import { computeSignals, type SignalValues } from "../signals/compute.js";
import { meets, readyCondition, type Condition } from "./condition.js";
import { handedOn, orderNodes, pipelineParts } from "./graph.js";
import type { NodeResult } from "./result.js";
import { Stage, type Instance } from "./stage.js";

export interface PipelineOptions {
  readonly manifest: Manifest;
  /** Over the root's session, with the whole manifest. */
  readonly root: Predictor;
  /** By node name. */
  readonly sessions: ReadonlyMap<string, Session>;
  readonly sizeImage: ImageSizer;
  /** The whole image upright as 8-bit RGB or gray: done once a frame, however many models look at it. */
  readonly decodeImage: (frame: EncodedFrame) => Promise<PixelFrame>;
  /** Of the package. */
  readonly baseline?: Baseline;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

interface PlannedStage {
  readonly stage: Stage;
  readonly condition: Condition | undefined;
}

/**
 * Frame → prediction over the root and the further nodes of a package. Each part runs at most once for a frame (for each box, where it
 * takes crops), after those it needs; frames are run in the order of the calls, one at a time.
 */
export class Pipeline {
  readonly #manifest: Manifest;
  readonly #root: Predictor;
  readonly #stages: readonly PlannedStage[];
  readonly #decodeImage: PipelineOptions["decodeImage"] | undefined;
  readonly #baseline: Baseline | undefined;
  readonly #now: () => number;
  readonly #handedOn: readonly string[];
  /** The part whose head names the class. */
  readonly #deciding: ReturnType<typeof decidingHeadOf>;
  readonly #streams = new StreamTable();
  #tail: Promise<unknown> = Promise.resolve();

  /** @throws FieldloopError `manifest_invalid` for a cycle or an unknown node */
  constructor(options: PipelineOptions) {
    const { manifest, root, sessions, sizeImage, decodeImage, now } = options;
    this.#manifest = manifest;
    this.#baseline = options.baseline;
    this.#root = root;
    this.#now = now;
    this.#handedOn = handedOn(manifest, ROOT_NODE);
    this.#deciding = decidingHeadOf(manifest);
    const heads = new Map(pipelineParts(manifest).map((part) => [part.name, part.heads]));
    const { baseline } = options;
    this.#stages = orderNodes(manifest.nodes).map((node) => ({
      stage: new Stage({ manifest, node, session: sessions.get(node.name)!, sizeImage, baseline, now }),
      condition: node.when && readyCondition(node.when, heads.get(node.when.node)!),
    }));
    const looksAgain = manifest.nodes.some(({ from }) => from.kind !== "tensors");
    this.#decodeImage = looksAgain ? decodeImage : undefined;
  }

  /** @throws FieldloopError as `Predictor.predict` of any of the parts */
  predict(frame: Frame, stream: string = MAIN_STREAM): Promise<Prediction> {
    const turn = this.#tail.then(() => this.#predict(frame, stream));
    this.#tail = turn.catch(() => undefined);
    return turn;
  }

  /** One after the other: parts that follow a frame over several models would not be faster in a batch of frames. */
  async predictBatch(frames: readonly Frame[], stream: string = MAIN_STREAM): Promise<BatchItem[]> {
    const items: BatchItem[] = [];
    for (const frame of frames) {
      try {
        items.push({ ok: true, prediction: await this.predict(frame, stream) });
      } catch (error) {
        items.push({ ok: false, error: toFieldloopError(error) });
      }
    }
    return items;
  }

  /** Forgets what a stream (all of them by default) carries, in every part. */
  resetStream(stream?: string): void {
    this.#root.resetStream(stream);
    this.#streams.forget(stream);
    for (const { stage } of this.#stages) stage.resetStream(stream);
  }

  async #predict(given: Frame, stream: string): Promise<Prediction> {
    const start = this.#now();
    const frame = given.kind === "encoded" && this.#decodeImage ? await this.#decodeImage(given) : given;
    const detailed = await this.#root.predictWith(frame, { stream, alsoFetch: this.#handedOn });
    const { prediction, outputs, prepared } = detailed;
    const { geometry } = prepared;
    const root: Instance = { outputs, heads: prediction.heads, geometry, latencyMs: prediction.latencyMs };
    const ran = new Map<string, readonly Instance[]>([[ROOT_NODE, [root]]]);
    for (const { stage, condition } of this.#stages) {
      const parents = parentsOf(stage, condition, ran);
      const { name } = stage.node;
      if (parents.length === 0) await naming(name, stage.passOver(frame, stream));
      ran.set(name, parents.length === 0 ? [] : await naming(name, stage.run(frame, parents, stream)));
    }
    this.#root.recycle(prepared);
    return this.#gather(prediction, ran, stream, start);
  }

  #gather(
    root: Prediction,
    ran: ReadonlyMap<string, readonly Instance[]>,
    stream: string,
    start: number,
  ): Prediction {
    const nodes = this.#results(ran);
    const heads = nodes.flatMap((result) => result.heads);
    const decision = this.#decision(root, nodes);
    const signals = this.#signals(root, heads, decision.class, stream);
    const embedding = root.embedding ?? heads.find((head) => head.kind === "embedding")?.embedding;
    const boxes = root.boxes ?? heads.find((head) => head.kind === "detection")?.boxes;
    return {
      ...decision,
      signals,
      latencyMs: this.#now() - start,
      ...(embedding === undefined ? {} : { embedding }),
      ...(boxes === undefined ? {} : { boxes }),
      heads: root.heads,
      nodes,
    };
  }

  /** In the manifest's order of the nodes. */
  #results(ran: ReadonlyMap<string, readonly Instance[]>): NodeResult[] {
    const position = new Map<Instance, number>();
    const entries = this.#manifest.nodes.flatMap((node) =>
      ran.get(node.name)!.map((instance) => ({ node, instance })),
    );
    entries.forEach(({ instance }, at) => position.set(instance, at));
    return entries.map(({ node, instance }) => {
      const { crop, heads, latencyMs } = instance;
      const parent = instance.parent && position.get(instance.parent);
      return {
        node: node.name,
        model: node.model,
        version: node.version,
        ...(crop === undefined ? {} : { crop }),
        ...(parent === undefined ? {} : { parent }),
        heads,
        latencyMs,
      };
    });
  }

  /** Of one head for every frame, so that class numbers always mean the same labels: none where that head did not run. */
  #decision(
    root: Prediction,
    nodes: readonly NodeResult[],
  ): Pick<Prediction, "class" | "label" | "confidence"> {
    const deciding = this.#deciding;
    if (deciding === undefined || deciding.node === ROOT_NODE) {
      const { class: decided, label, confidence } = root;
      return { class: decided, label, confidence };
    }
    const result = nodes
      .find(({ node }) => node === deciding.node)
      ?.heads.find(({ name }) => name === deciding.head.name);
    if (result === undefined || !("class" in result)) return { class: -1, label: NO_LABEL, confidence: 1 };
    return { class: result.class, label: result.label, confidence: result.confidence };
  }

  /** Where a model was split the baseline came along with its root, and may be about the embedding of a node. */
  #baselineFor(heads: readonly HeadResult[]): { baseline?: Baseline } {
    const length = heads.find((head) => head.kind === "embedding")?.embedding.length;
    const fits = length !== undefined && this.#baseline?.novelty?.length === length;
    return fits && this.#baseline !== undefined ? { baseline: this.#baseline } : {};
  }

  /** What the root cannot say, its nodes do. */
  #signals(root: Prediction, heads: readonly HeadResult[], decided: number, stream: string): SignalValues {
    const wanted = this.#manifest.signals;
    if (wanted.length === 0) return root.signals;
    const rootDecides = this.#deciding === undefined || this.#deciding.node === ROOT_NODE;
    const missing = wanted.filter((name) => root.signals[name] === undefined);
    const ofNodes = computeSignals(missing, { results: heads, ...this.#baselineFor(heads) });
    const own: Partial<Record<(typeof wanted)[number], number>> = {};
    const instability = rootDecides ? undefined : this.#streams.of(stream).tracker.update(decided);
    for (const name of wanted) {
      const value =
        name === "instability" && instability !== undefined
          ? instability
          : (root.signals[name] ?? ofNodes[name]);
      if (value !== undefined) own[name] = value;
    }
    return own;
  }
}

/** Says in an error which node it was. */
async function naming<Value>(node: string, work: Promise<Value>): Promise<Value> {
  try {
    return await work;
  } catch (cause) {
    const { code, message } = toFieldloopError(cause);
    throw new FieldloopError(code, `Node "${node}": ${message}`, { cause });
  }
}

/**
 * The results that a node takes something of: those of its source, where it may ask each of them by itself; none where its condition is not
 * met. A node that is fed with the frame has no other than the root to say so.
 */
function parentsOf(
  { node }: Stage,
  condition: Condition | undefined,
  ran: ReadonlyMap<string, readonly Instance[]>,
): readonly Instance[] {
  const source = node.from.kind === "frame" ? ROOT_NODE : node.from.node;
  const parents = ran.get(source)!;
  if (condition === undefined) return parents;
  const asked = ran.get(condition.node)!.filter(({ heads }) => meets(condition, heads));
  if (condition.node === source) return asked;
  return asked.length > 0 ? parents : [];
}
