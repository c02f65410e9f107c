import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { manifestFiles, type PipelineSpec } from "@fieldloop/protocol";
import { GraphBuilder, encodeModel, float32Tensor, type Frame, type Tensor } from "@fieldloop/runtime";
import {
  DEFAULT_SPIN_DURATION_US,
  buildPipeline,
  openBareRunner,
  openModel,
  replacePart,
  writePackage,
  type LoadedModel,
  type ManifestDraft,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";
import { progress, type Figure } from "./report.js";

const MEASURE_MS = 8_000;
const WARM_RUNS = 5;
const THREADS = 1;
const SIZE = 128;
const CHANNELS = 64;
/** Side of the feature map that the heads share. */
const FEATURES = 32;
const HEADS = ["colour", "shape", "damage"] as const;
const CLASSES = 5;
/** Of each part beside its bare run. */
const PART_OVERHEAD_MS = 0.06;
const CREATED = new Date("2026-11-20T00:00:00Z");

type HeadName = (typeof HEADS)[number];

/** A convolution network of about 190 million multiplications whose weights hang on the names of its layers alone. */
class Net {
  readonly graph = new GraphBuilder();

  weights(name: string, dims: readonly number[]): string {
    const random = new Random(Buffer.from(name).reduce((sum, byte) => (sum * 31 + byte) >>> 0, 7));
    const count = dims.reduce((product, dim) => product * dim, 1);
    const scale = Math.sqrt((2 * dims[0]!) / count);
    const values = Float32Array.from({ length: count }, () => scale * random.normal());
    return this.graph.initializer(float32Tensor(name, dims, values));
  }

  convolution(
    name: string,
    x: string,
    channels: readonly [number, number],
    stride: number,
    to?: string,
  ): string {
    const weight = this.weights(name, [channels[1], channels[0], 3, 3]);
    const attributes = {
      kernel_shape: { ints: [3, 3] },
      strides: { ints: [stride, stride] },
      pads: { ints: [1, 1, 1, 1] },
    };
    const [y] = this.graph.node("Conv", [x, weight], attributes);
    return this.graph.node("Relu", [y!], {}, to === undefined ? 1 : [to])[0]!;
  }

  /** From the image to `features`. */
  backbone(): void {
    let at = this.graph.input("image", "float32", [1, 3, SIZE, SIZE]);
    at = this.convolution("stem", at, [3, 32], 2);
    at = this.convolution("down", at, [32, CHANNELS], 2);
    for (const name of ["a", "b", "c"]) at = this.convolution(name, at, [CHANNELS, CHANNELS], 1);
    this.convolution("d", at, [CHANNELS, CHANNELS], 1, "features");
  }

  head(name: HeadName): void {
    const narrow = this.convolution(`${name}.conv`, "features", [CHANNELS, CHANNELS], 2);
    const [pooled] = this.graph.node("GlobalAveragePool", [narrow]);
    const [flat] = this.graph.node("Flatten", [pooled!], { axis: { i: 1 } });
    const weight = this.weights(`${name}.dense`, [CLASSES, CHANNELS]);
    this.graph.node("Gemm", [flat!, weight], { transB: { i: 1 } }, [name]);
    this.graph.output(name, "float32", [1, CLASSES]);
  }

  encode(): Uint8Array {
    return encodeModel(this.graph.build({ opset: 17 }));
  }
}

const FEATURE_DIMS = [1, CHANNELS, FEATURES, FEATURES];
const IMAGE: ManifestDraft["inputs"][number] = {
  kind: "image",
  name: "image",
  width: SIZE,
  height: SIZE,
  colour: "rgb",
  resize: "stretch",
  layout: "nchw",
  range: "unit",
};

function headOf(name: HeadName): ManifestDraft["heads"][number] {
  const labels = Array.from({ length: CLASSES }, (_, at) => `${name}-${at}`);
  return { name, kind: "classification", output: name, labels, values: "logits" };
}

async function packageOf(
  folder: string,
  model: string,
  net: Net,
  inputs: ManifestDraft["inputs"],
  heads: readonly HeadName[],
  version = 1,
): Promise<ModelPackage> {
  const draft: ManifestDraft = {
    schema: 1,
    model,
    version,
    created: CREATED.toISOString(),
    task: heads.length === 0 ? "pipeline" : "classification",
    licence: "Apache-2.0",
    inputs,
    heads: heads.map(headOf),
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    lineage: { base: null, snapshot: null, trainer: "seeded", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(join(folder, `${model}-${version}`), draft, { "fp32.onnx": net.encode() });
}

/** The whole network with some of the heads. */
function wholeNet(heads: readonly HeadName[]): Net {
  const net = new Net();
  net.backbone();
  for (const name of heads) net.head(name);
  return net;
}

function headPackage(folder: string, name: HeadName, version = 1): Promise<ModelPackage> {
  const net = new Net();
  net.graph.input("features", "float32", FEATURE_DIMS);
  net.head(name);
  const input = { kind: "tensor", name: "features", elementType: "float32", dims: FEATURE_DIMS } as const;
  return packageOf(folder, name, net, [{ ...input, dims: [...FEATURE_DIMS] }], [name], version);
}

async function pipelineOf(folder: string): Promise<ModelPackage> {
  const backbone = new Net();
  backbone.backbone();
  backbone.graph.output("features", "float32", FEATURE_DIMS);
  const parts = new Map([["root", await packageOf(folder, "backbone", backbone, [IMAGE], [])]]);
  for (const name of HEADS) parts.set(name, await headPackage(folder, name));
  const spec: PipelineSpec = {
    model: "three-heads",
    version: 1,
    description: "",
    root: "backbone",
    nodes: HEADS.map((name) => ({
      name,
      package: name,
      from: { kind: "tensors", node: "root", tensors: { features: "features" } },
    })),
  };
  return buildPipeline(join(folder, "pipeline"), spec, parts, { created: CREATED });
}

/**
 * A backbone with three heads as a pipeline, beside three whole models one after the other (what it replaces) and the one fused graph
 * (its limit): `predict` from an input tensor, one thread, in turns. And what a new version of one head weighs.
 */
export async function measurePipelines(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-bench-pipelines-"));
  const open: LoadedModel[] = [];
  const opened = async (pkg: ModelPackage): Promise<LoadedModel> => {
    const model = await openModel(pkg, { threadCount: THREADS });
    open.push(model);
    return model;
  };
  try {
    const pipeline = await pipelineOf(folder);
    const split = await opened(pipeline);
    const fused = await opened(await packageOf(folder, "fused", wholeNet(HEADS), [IMAGE], HEADS));
    const whole: LoadedModel[] = [];
    for (const name of HEADS) {
      whole.push(await opened(await packageOf(folder, `whole-${name}`, wholeNet([name]), [IMAGE], [name])));
    }
    const { feeds } = await split.prepare(noise());
    const frame: Frame = { kind: "tensors", feeds };
    await requireAlike(split, fused, frame);
    progress(
      `a backbone with three heads, three whole models and one fused graph, for ${MEASURE_MS / 1000} s`,
    );
    const bare = await bareParts(split, feeds);
    const medians = await takeTurns({
      pipeline: () => split.predict(frame),
      fused: () => fused.predict(frame),
      bare: bare.run,
      whole: async () => {
        for (const model of whole) await model.predict(frame);
      },
    });
    await bare.release();
    return figuresOf(medians, await updateBytes(folder, pipeline));
  } finally {
    for (const model of open) await model.release();
    await rm(folder, { recursive: true, force: true });
  }
}

type Way = "pipeline" | "fused" | "bare" | "whole";

function figuresOf(ms: Record<Way, number>, bytes: { changed: number; all: number }): Figure[] {
  const what = "backbone and three heads as a pipeline, from the input tensor, median of a frame";
  const parts = 1 + HEADS.length;
  const beside = (id: string, peer: string, value: number, most?: number): Figure => ({
    id,
    what,
    value: ms.pipeline,
    unit: "ms",
    peer: { what: `ms ${peer}`, value },
    ...(most === undefined ? {} : { bar: { at: "most", value: most } }),
  });
  return [
    // Each of its graphs takes less than 2 ms: what counts is the way to it and back, as with the smallest models alone.
    beside(
      "pipeline_overhead",
      `bare ONNX Runtime on the same ${parts} graphs, tensors ready`,
      ms.bare,
      ms.bare + parts * PART_OVERHEAD_MS,
    ),
    beside("pipeline_beside_fused", "as one fused graph", ms.fused),
    beside("pipeline_beside_whole_models", "as three whole models one after the other", ms.whole),
    {
      id: "pipeline_update_bytes",
      what: "a new version of one head: models that travel",
      value: bytes.changed / 1024,
      unit: "KiB",
      peer: { what: "KiB of models in the package", value: bytes.all / 1024 },
    },
  ];
}

/** The sessions of a pipeline with nothing of ours around them, on tensors made once. */
async function bareParts(
  model: LoadedModel,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<{ run: () => Promise<void>; release: () => Promise<void> }> {
  const features = await model.runTensors(feeds, ["features"]);
  const runners = await Promise.all(
    model.parts.map(({ name, variant }) => {
      const isRoot = name === "root";
      const options = {
        threadCount: THREADS,
        executionProvider: model.executionProvider,
        spinDurationUs: DEFAULT_SPIN_DURATION_US,
      };
      const path = join(model.package.dir, variant.file);
      return openBareRunner(path, options, isRoot ? feeds : features, [isRoot ? "features" : name]);
    }),
  );
  return {
    run: async () => {
      for (const runner of runners) await runner.run();
    },
    release: async () => {
      for (const runner of runners) await runner.release();
    },
  };
}

function noise(): Frame {
  const random = new Random(11);
  const data = Uint8Array.from({ length: SIZE * SIZE * 3 }, () => Math.floor(random.uniform() * 256));
  return { kind: "pixels", data, width: SIZE, height: SIZE, channels: 3 };
}

/** The times of two things that do not give the same say nothing. */
async function requireAlike(split: LoadedModel, fused: LoadedModel, frame: Frame): Promise<void> {
  const apart = (await split.predict(frame)).nodes!.flatMap(({ heads }) => heads);
  const together = (await fused.predict(frame)).heads;
  together.forEach((head, at) => {
    const other = apart[at];
    if (head.kind !== "classification" || other?.kind !== "classification") throw new Error("no classes");
    head.probabilities.forEach((value, label) => {
      if (Math.abs(value - other.probabilities[label]!) > 1e-4)
        throw new Error(`"${head.name}" differs: ${value}, ${other.probabilities[label]}`);
    });
  });
}

/** Median milliseconds of each, run in turns. */
async function takeTurns(runs: Record<Way, () => Promise<unknown>>): Promise<Record<Way, number>> {
  const ways = Object.keys(runs) as Way[];
  const times: Record<Way, number[]> = { pipeline: [], fused: [], bare: [], whole: [] };
  for (const way of ways) for (let round = 0; round < WARM_RUNS; round++) await runs[way]();
  const end = performance.now() + MEASURE_MS;
  while (performance.now() < end) {
    for (const way of ways) {
      const start = performance.now();
      await runs[way]();
      times[way].push(performance.now() - start);
    }
  }
  const median = (way: Way): number => times[way].sort((a, b) => a - b)[times[way].length >> 1]!;
  return {
    pipeline: median("pipeline"),
    fused: median("fused"),
    bare: median("bare"),
    whole: median("whole"),
  };
}

async function updateBytes(
  folder: string,
  pipeline: ModelPackage,
): Promise<{ changed: number; all: number }> {
  const net = new Net();
  net.graph.input("features", "float32", FEATURE_DIMS);
  net.weights("not trained as before", [1]);
  net.head("damage");
  const input = { kind: "tensor" as const, name: "features", elementType: "float32" as const };
  const inputs = [{ ...input, dims: [...FEATURE_DIMS] }];
  const better = await packageOf(folder, "damage", net, inputs, ["damage"], 2);
  const options = { created: CREATED };
  const second = await replacePart(join(folder, "pipeline-2"), pipeline, "damage", better, options);
  const known = new Set(manifestFiles(pipeline.manifest).map(({ sha256 }) => sha256));
  const files = manifestFiles(second.manifest);
  const sum = (wanted: typeof files): number => wanted.reduce((total, { bytes }) => total + bytes, 0);
  return { changed: sum(files.filter(({ sha256 }) => !known.has(sha256))), all: sum(files) };
}
