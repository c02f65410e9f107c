import { createHash } from "node:crypto";
import { link, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { emptyStatistics, type ErrorCode } from "@fieldloop/protocol";
import {
  GraphBuilder,
  encodeBaseline,
  encodeModel,
  float32Tensor,
  tensorToBytes,
  type Tensor,
} from "@fieldloop/runtime";
import { ortNode, writePackage, type ManifestDraft, type ModelPackage } from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";

export const TINY_SIDE = 16;
export const TINY_LABELS = ["bar", "ring", "cross"] as const;
const DIMS = [1, 1, TINY_SIDE, TINY_SIDE] as const;
const CHANNELS = 4;

export interface TinyPackageOptions {
  readonly model?: string;
  readonly version?: number;
  /** Other seeds are other weights: a version that answers differently. */
  readonly seed?: number;
  /** Added to the expected logits: a package whose golden case fails. */
  readonly goldenError?: number;
  /** Units of a layer between embedding and logits, 28 bytes each: a file that takes a while to travel. */
  readonly hidden?: number;
  /** Added to the logits: the same weights but for three, as after training the end of a network alone. */
  readonly shift?: number;
  /** Each weight moved by about this much, as after training all of a network a little more. */
  readonly moved?: number;
}

type Change = Pick<TinyPackageOptions, "shift" | "moved">;

/** A convolution, a pooled embedding and a dense layer with seeded weights: untrained, but a real ONNX classifier of 16×16 gray images. */
export function tinyModel(seed = 1, hidden = 0, { shift = 0, moved = 0 }: Change = {}): Uint8Array {
  const moves = new Random(seed, 2);
  const random = new Random(seed);
  const graph = new GraphBuilder();
  const weights = (name: string, dims: readonly number[], added = 0): string => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    return graph.initializer(
      float32Tensor(
        name,
        dims,
        Float32Array.from({ length: count }, () => 0.5 * random.normal() + added + moved * moves.normal()),
      ),
    );
  };
  const image = graph.input("image", "float32", [...DIMS]);
  const [convolved] = graph.node(
    "Conv",
    [image, weights("conv.weight", [CHANNELS, 1, 3, 3]), weights("conv.bias", [CHANNELS])],
    {
      kernel_shape: { ints: [3, 3] },
      strides: { ints: [2, 2] },
      pads: { ints: [1, 1, 1, 1] },
    },
  );
  const [lit] = graph.node("Relu", [convolved!]);
  const [pooled] = graph.node("GlobalAveragePool", [lit!]);
  graph.node("Flatten", [pooled!], { axis: { i: 1 } }, ["embedding"]);
  let features = "embedding";
  let width = CHANNELS;
  if (hidden > 0) {
    const [wide] = graph.node("Gemm", [features, weights("wide.weight", [hidden, width])], {
      transB: { i: 1 },
    });
    features = graph.node("Tanh", [wide!])[0]!;
    width = hidden;
  }
  graph.node(
    "Gemm",
    [features, weights("head.weight", [3, width]), weights("head.bias", [3], shift)],
    { transB: { i: 1 } },
    ["logits"],
  );
  graph.output("logits", "float32", [1, TINY_LABELS.length]);
  graph.output("embedding", "float32", [1, CHANNELS]);
  return encodeModel(graph.build({ opset: 17, graphName: "tiny" }));
}

/** Manifest and files of a sound package around {@link tinyModel}; the golden case is what the model says here. */
export async function tinyPackage(
  options: TinyPackageOptions = {},
): Promise<{ draft: ManifestDraft; files: Record<string, Uint8Array> }> {
  const seed = options.seed ?? 1;
  const onnx = tinyModel(seed, options.hidden, options);
  const random = new Random(seed, 99);
  const input: Tensor = {
    type: "float32",
    dims: [...DIMS],
    data: Float32Array.from({ length: TINY_SIDE * TINY_SIDE }, () => random.uniform()),
  };
  const logits = await run(onnx, input);
  const expected = Float32Array.from(logits, (value) => value + (options.goldenError ?? 0));
  const draft: ManifestDraft = {
    schema: 1,
    model: options.model ?? "tiny",
    version: options.version ?? 1,
    created: "2026-11-01T00:00:00.000Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "image",
        name: "image",
        width: TINY_SIDE,
        height: TINY_SIDE,
        colour: "gray",
        resize: "stretch",
        layout: "nchw",
        range: "unit",
      },
    ],
    heads: [
      { name: "shape", kind: "classification", output: "logits", labels: [...TINY_LABELS], values: "logits" },
      { name: "embedding", kind: "embedding", output: "embedding", length: CHANNELS },
    ],
    signals: ["margin", "entropy"],
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [
      {
        name: "noise",
        inputs: [{ name: "image", file: "golden/in.bin", elementType: "float32", dims: [...DIMS] }],
        outputs: [
          { name: "logits", file: "golden/out.bin", elementType: "float32", dims: [1, TINY_LABELS.length] },
        ],
        tolerance: { fp32: { absolute: 1e-4, relative: 1e-4 } },
      },
    ],
    baseline: { file: "baseline.cbor" },
    lineage: {
      base: null,
      snapshot: null,
      trainer: "none: seeded weights",
      settings: { seed },
      libraries: {},
      metrics: {},
    },
  };
  const files = {
    "fp32.onnx": onnx,
    "golden/in.bin": tensorToBytes(input),
    "golden/out.bin": tensorToBytes({ type: "float32", dims: [1, TINY_LABELS.length], data: expected }),
    "baseline.cbor": encodeBaseline({ statistics: emptyStatistics() }),
  };
  return { draft, files };
}

/** Writes a sound tiny package to a folder that is not there yet. */
export async function writeTinyPackage(dir: string, options: TinyPackageOptions = {}): Promise<ModelPackage> {
  const { draft, files } = await tinyPackage(options);
  return writePackage(dir, draft, files);
}

/** Ways to spoil a written package, each with the code that opening it must give. */
export const SPOILED = {
  "no manifest": { code: "not_found", spoil: (dir) => rm(join(dir, "manifest.json")) },
  "manifest cut short": {
    code: "manifest_invalid",
    spoil: (dir) => change(dir, "manifest.json", (bytes) => bytes.subarray(0, 100)),
  },
  "manifest of 2 MB": {
    code: "limit_exceeded",
    spoil: (dir) =>
      change(dir, "manifest.json", (bytes) => Buffer.concat([bytes, Buffer.alloc(2 << 20, 32)])),
  },
  "a file is missing": { code: "package_file_missing", spoil: (dir) => rm(join(dir, "fp32.onnx")) },
  "a file too many": {
    code: "package_file_unexpected",
    spoil: (dir) => writeFile(join(dir, "extra.bin"), "extra"),
  },
  "a hidden file too many": {
    code: "package_file_unexpected",
    spoil: (dir) => writeFile(join(dir, "golden", ".hidden"), "extra"),
  },
  "a byte flipped": {
    code: "package_hash_mismatch",
    spoil: (dir) => change(dir, "fp32.onnx", (bytes) => bytes.with(40, bytes[40]! ^ 1)),
  },
  "a file longer by a byte": {
    code: "package_size_mismatch",
    spoil: (dir) => change(dir, "golden/in.bin", (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])),
  },
  "a file is a symbolic link": { code: "package_link_refused", spoil: (dir) => replaceByLink(dir, symlink) },
  "a file is a hard link": { code: "package_link_refused", spoil: (dir) => replaceByLink(dir, link) },
} as const satisfies Record<string, { code: ErrorCode; spoil: (dir: string) => Promise<void> }>;

/** A gray PNG of the model's size with seeded pixels (ISO/IEC 15948, filter 0). */
export function tinyPng(seed = 1): Buffer {
  const random = new Random(seed, 7);
  const pixels = Uint8Array.from({ length: TINY_SIDE * TINY_SIDE }, () => Math.floor(random.uniform() * 256));
  return encodePng({
    width: TINY_SIDE,
    height: TINY_SIDE,
    bitDepth: 8,
    colourType: 0,
    rows: (y) => pixels.subarray(y * TINY_SIDE, (y + 1) * TINY_SIDE),
  });
}

export interface PngPlan {
  readonly width: number;
  readonly height: number;
  readonly bitDepth: 1 | 8 | 16;
  /** 0 gray, 2 RGB, 6 RGB with alpha. */
  readonly colourType: 0 | 2 | 6;
  /** The bytes of one row, without its filter byte. */
  readonly rows: (y: number) => Uint8Array;
}

export function encodePng(plan: PngPlan): Buffer {
  const body = Buffer.concat(
    Array.from({ length: plan.height }, (_, y) => [Buffer.alloc(1), plan.rows(y)]).flat(),
  );
  return Buffer.concat([
    pngHead(plan),
    pngChunk("IDAT", deflateSync(body, { level: 1 })),
    pngChunk("IEND", Buffer.alloc(0)),
  ]);
}

/** Signature and header chunk: 33 bytes that say how large the image is. */
export function pngHead({ width, height, bitDepth, colourType }: Omit<PngPlan, "rows">): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = bitDepth;
  header[9] = colourType;
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    pngChunk("IHDR", header),
  ]);
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function pngChunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type), data]);
  const frame = Buffer.alloc(body.length + 8);
  frame.writeUInt32BE(data.length, 0);
  frame.set(body, 4);
  frame.writeUInt32BE(crc32(body), body.length + 4);
  return frame;
}

/** By path from a folder of its own, as every model is opened. */
async function run(onnx: Uint8Array, image: Tensor): Promise<Float32Array> {
  const dir = await mkdtemp(join(tmpdir(), "fieldloop-tiny-"));
  try {
    const path = join(dir, "model.onnx");
    await writeFile(path, onnx);
    const session = await ortNode.openSession(path, { threadCount: 1, executionProvider: "cpu" });
    try {
      return (await session.run({ image }))["logits"]!.data as Float32Array;
    } finally {
      await session.release();
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function change(dir: string, name: string, by: (bytes: Uint8Array) => Uint8Array): Promise<void> {
  const path = join(dir, name);
  await writeFile(path, by(await readFile(path)));
}

/** The file's content moves out of the package and is linked in. */
async function replaceByLink(
  dir: string,
  make: (target: string, path: string) => Promise<void>,
): Promise<void> {
  const path = join(dir, "fp32.onnx");
  const outside = `${dir}-outside.onnx`;
  await writeFile(outside, await readFile(path));
  await rm(path);
  await make(outside, path);
}
