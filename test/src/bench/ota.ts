import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { packagePath } from "@fieldloop/models";
import { decidingHead, decodeDataFile, type Manifest } from "@fieldloop/protocol";
import {
  decodeModel,
  encodeModel,
  FramePreparer,
  GraphBuilder,
  int8Tensor,
  Predictor,
  openStaticQuantizer,
  readQuantizedBase,
  searchNearBase,
  type Frame,
  type QuantizedBase,
} from "@fieldloop/runtime";
import { makeDeltaOf } from "@fieldloop/runtime/delta";
import { openPackage, ortNode, prepareImage } from "@fieldloop/runtime/node";
import { createPartsScene, partsFrameSize, Random } from "@fieldloop/runtime/simulate";
import { fit, type TrainingSettingsInput } from "@fieldloop/runtime/train";
import { INT8 } from "./quantize-accuracy.js";
import { progress, type Figure } from "./report.js";

const run = promisify(execFile);
/** Cameras that nothing else was trained or measured on. */
const SEED = 9100;
/** Percent of the file that a delta may take where the version was quantized near its base. */
const NEAR_MOST = 18;
const FRAMES = { cameras: 4, each: 100 } as const;
const LARGE_BYTES = 50_000_000;
const MEGABYTE = 1_000_000;
/** As the agent's own rebuilding process has them. */
const REBUILD_FLAGS = ["--max-semi-space-size=1", "--optimize-for-size", "--max-old-space-size=64"];

interface Labelled {
  readonly frames: readonly Frame[];
  readonly labels: Uint8Array;
}

/** What travels to a device that has the version before: of the shipped network retrained, and how fast a large file is rebuilt. */
export async function runOtaSuite({ quick }: { readonly quick: boolean }): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-ota-"));
  try {
    return [...(await retrained(folder, quick)), ...(await rebuilt(folder))];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The shipped `parts` network, retrained on cameras whose light is bad, and quantized: as the version before was, and near its levels as far
 * as that costs no accuracy on other cameras and on the old data.
 */
async function retrained(folder: string, quick: boolean): Promise<Figure[]> {
  const pkg = await openPackage(packagePath("parts"));
  const { manifest } = pkg;
  const fileOf = (precision: string): string =>
    join(pkg.dir, manifest.variants.find((variant) => variant.precision === precision)!.file);
  const model = new Uint8Array(await readFile(fileOf("fp32")));
  const replay = decodeDataFile(new Uint8Array(await readFile(join(pkg.dir, manifest.replay!.file))));
  const labels = decidingHead(manifest.heads)!.labels;
  const held = decodeDataFile(new Uint8Array(await readFile(join(pkg.dir, manifest.holdout!.file))));
  const holdout: Labelled = {
    frames: held.map(({ payload }): Frame => ({ kind: "encoded", bytes: payload })),
    labels: Uint8Array.from(held, ({ label }) => labels.indexOf(label)),
  };
  const taught = draw(SEED);
  const judged = draw(SEED + 25);
  const later = draw(SEED + 50);
  const old = replay.slice(0, 200).map(({ payload }): Frame => ({ kind: "encoded", bytes: payload }));
  const open = (bytes: Uint8Array, frames: readonly Frame[], before?: QuantizedBase) => {
    const feeds = async function* () {
      const preparer = new FramePreparer(manifest, prepareImage);
      for (const frame of frames) yield (await preparer.prepare(frame)).feeds;
    };
    const settings = { ...INT8, method: { kind: "minmax" }, calibration: feeds() } as const;
    return openStaticQuantizer(bytes, before ? { ...settings, base: before } : settings);
  };
  const base = (await open(model, old)).rewrite([]);
  const data = { inputs: await rowsOf(manifest, taught.frames), labels: taught.labels };
  const before = await accuracy(manifest, base, later);
  const figures: Figure[] = [];
  const epochs = quick ? 4 : 20;
  const ways: readonly (readonly [string, string, TrainingSettingsInput, number])[] = [
    ["head", "the head alone", { trainable: "head", rate: 1e-3 }, 2],
    ["sgd", "the whole network, SGD at 1e-3", { optimizer: "sgd", rate: 1e-3 }, 30],
    ["adamw", "the whole network, AdamW at 1e-4", { rate: 1e-4 }, 30],
  ];
  for (const [id, what, settings, most] of ways) {
    progress(`retraining ${what}`);
    const tuned = await fit({ model, backend: ortNode, data, settings: { ...settings, epochs, seed: 7 } });
    const quantizer = await open(
      tuned.model,
      [...old, ...taught.frames.filter((_, at) => at % 2 === 0)],
      readQuantizedBase(base, model),
    );
    const target = quantizer.rewrite([]);
    progress(`quantizing ${what} near the base`);
    const near = await searchNearBase(quantizer, {
      evaluate: async (bytes) => [
        (await accuracy(manifest, bytes, judged)) / 100,
        (await accuracy(manifest, bytes, holdout)) / 100,
      ],
    });
    const nearDelta = makeDeltaOf(base, near.bytes)!;
    const delta = makeDeltaOf(base, target)!;
    const share = (bytes: number): number => (100 * bytes) / target.length;
    const text = `int8 parts, ${target.length} bytes, ${what}`;
    const peers = await peerDeltas(folder, base, target);
    const best = peers.toSorted((a, b) => a.bytes - b.bytes)[0];
    figures.push(
      {
        id: `${id}_delta`,
        what: `${text}: travels`,
        value: share(delta.length),
        unit: "%",
        ...(best ? { peer: { what: `% ${best.name}, the best of three`, value: share(best.bytes) } } : {}),
        bar: { at: "most", value: most },
      },
      {
        id: `${id}_near_delta`,
        what: `${text}, near the base's levels (change cost ${near.changeCost ?? "none holds"}): travels`,
        value: share(nearDelta.length),
        unit: "%",
        ...(best ? { peer: { what: `% ${best.name}, the best of three`, value: share(best.bytes) } } : {}),
        bar: { at: "most", value: Math.min(most, NEAR_MOST) },
      },
      ...peers.map(({ name, bytes }) => ({
        id: `${id}_${name}`,
        what: `${text}: ${name}`,
        value: share(bytes),
        unit: "%",
      })),
      {
        id: `${id}_entropy`,
        what: `${text}: entropy of the differences, tensor by tensor, 8-bit weights alone`,
        value: share(entropyBytes(base, target)),
        unit: "%",
      },
      {
        id: `${id}_accuracy`,
        what: `${what}: right on cameras in bad light`,
        value: await accuracy(manifest, target, later),
        unit: "%",
        peer: { what: "% before", value: before },
      },
      {
        id: `${id}_near_accuracy`,
        what: `${what}, near the base's levels: right on cameras in bad light`,
        value: await accuracy(manifest, near.bytes, later),
        unit: "%",
        peer: { what: "% rounded", value: await accuracy(manifest, target, later) },
        // Cameras that had no say in how near; chance alone moves 400 frames by a point.
        bar: { at: "least", value: (await accuracy(manifest, target, later)) - 1 },
      },
      {
        id: `${id}_near_old_accuracy`,
        what: `${what}, near the base's levels: right on the old data`,
        value: await accuracy(manifest, near.bytes, holdout),
        unit: "%",
        peer: { what: "% rounded", value: await accuracy(manifest, target, holdout) },
      },
    );
  }
  return figures;
}

function draw(seed: number): Labelled {
  const frames: Frame[] = [];
  const labels: number[] = [];
  for (let camera = 0; camera < FRAMES.cameras; camera++) {
    const scene = createPartsScene({ seed: seed + camera, condition: "degraded" });
    for (let index = 0; index < FRAMES.each; index++) {
      const { pixels, truth } = scene.next();
      const size = { width: partsFrameSize, height: partsFrameSize, channels: 3 } as const;
      // The scene may use its memory again.
      frames.push({ kind: "pixels", data: pixels.slice(), ...size });
      labels.push(truth.labelIndex);
    }
  }
  return { frames, labels: Uint8Array.from(labels) };
}

async function rowsOf(manifest: Manifest, frames: readonly Frame[]): Promise<Float32Array> {
  const preparer = new FramePreparer(manifest, prepareImage);
  const length = partsFrameSize * partsFrameSize * 3;
  const rows = new Float32Array(frames.length * length);
  for (const [at, frame] of frames.entries()) {
    const [tensor] = Object.values((await preparer.prepare(frame)).feeds);
    rows.set(tensor!.data as Float32Array, at * length);
  }
  return rows;
}

/** Percent. */
async function accuracy(
  manifest: Manifest,
  bytes: Uint8Array,
  { frames, labels }: Labelled,
): Promise<number> {
  const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
  const predictor = new Predictor({
    manifest,
    session,
    sizeImage: prepareImage,
    now: () => performance.now(),
  });
  let right = 0;
  for (const [at, frame] of frames.entries()) {
    if ((await predictor.predict(frame)).class === labels[at]) right++;
  }
  await session.release();
  return (100 * right) / frames.length;
}

interface Peer {
  readonly name: string;
  readonly bytes: number;
}

/** What general programs make of the same pair; those that this machine has. */
async function peerDeltas(folder: string, base: Uint8Array, target: Uint8Array): Promise<Peer[]> {
  const [from, to] = [join(folder, "base"), join(folder, "target")];
  await writeFile(from, base);
  await writeFile(to, target);
  const programs: readonly (readonly [string, string, (out: string) => string[]])[] = [
    [
      "zstd -22 --patch-from",
      "zstd",
      (out) => ["--ultra", "-22", "-q", "-f", `--patch-from=${from}`, to, "-o", out],
    ],
    ["xdelta3 -9", "xdelta3", (out) => ["-9", "-S", "lzma", "-f", "-e", "-s", from, to, out]],
    ["bsdiff", "bsdiff", (out) => [from, to, out]],
  ];
  const peers: Peer[] = [];
  for (const [name, program, parameters] of programs) {
    const out = join(folder, `${program}.out`);
    try {
      await run(program, parameters(out));
      peers.push({ name, bytes: (await stat(out)).size });
    } catch (error) {
      progress(`${name} is left out: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  return peers;
}

/** Order-0 entropy of target minus base modulo 256, each 8-bit initializer by itself (Shannon 1948): a coder that knows no neighbours cannot do better. */
function entropyBytes(base: Uint8Array, target: Uint8Array): number {
  const before = new Map(
    (decodeModel(base).graph?.initializer ?? []).map((tensor) => [tensor.name, tensor.rawData]),
  );
  let bits = 0;
  for (const { name, rawData, dataType } of decodeModel(target).graph?.initializer ?? []) {
    // ONNX: 2 is uint8, 3 is int8.
    const old = before.get(name);
    if ((dataType !== 2 && dataType !== 3) || old?.length !== rawData.length) continue;
    const counts = new Map<number, number>();
    for (const [at, value] of rawData.entries()) {
      const difference = (value - old[at]!) & 255;
      counts.set(difference, (counts.get(difference) ?? 0) + 1);
    }
    for (const count of counts.values()) bits -= count * Math.log2(count / rawData.length);
  }
  return bits / 8;
}

/** A file of 50 MB whose 8-bit weights moved as in fine-tuning at a low rate: most stay, some go by one. */
async function rebuilt(folder: string): Promise<Figure[]> {
  progress("a file of 50 MB");
  const [from, to] = [drawnFile(0), drawnFile(0.12)];
  const delta = makeDeltaOf(from, to)!;
  const [basePath, deltaPath] = [join(folder, "large"), join(folder, "large.delta")];
  await writeFile(basePath, from);
  await writeFile(deltaPath, delta);
  const entry = fileURLToPath(new URL("./ota-rebuild.js", import.meta.url));
  const { stdout } = await run(process.execPath, [...REBUILD_FLAGS, entry, basePath, deltaPath]);
  const said = JSON.parse(stdout) as { bytes: number; seconds: number; extraBytes: number };
  return [
    {
      id: "rebuild_seconds",
      what: `${(said.bytes / MEGABYTE).toFixed(0)} MB rebuilt from a delta of ${(delta.length / MEGABYTE).toFixed(1)} MB`,
      value: said.seconds,
      unit: "s",
      bar: { at: "most", value: 2 },
    },
    {
      id: "rebuild_memory",
      what: "memory that took, the delta included",
      value: said.extraBytes / MEGABYTE,
      unit: "MB",
      bar: { at: "most", value: 150 },
    },
  ];
}

function drawnFile(moved: number): Uint8Array {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1, 4]);
  const weights = new Random(SEED, 1);
  const moves = new Random(SEED, 2);
  const side = 1000;
  for (let layer = 0; layer < LARGE_BYTES / side ** 2; layer++) {
    const values = Int8Array.from({ length: side * side }, () => {
      const value = Math.max(-126, Math.min(126, Math.round(32 * weights.normal())));
      return moves.uniform() < moved ? value + (value > 0 ? 1 : -1) : value;
    });
    graph.initializer(int8Tensor(`w${layer}`, [side, side], values));
  }
  graph.node("Relu", ["x"], {}, ["y"]);
  graph.output("y", "float32", [1, 4]);
  return encodeModel(graph.build({ opset: 17 }));
}
