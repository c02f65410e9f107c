import { join } from "node:path";
import { FieldloopError, ROOT_NODE, type ModelInput } from "@fieldloop/protocol";
import { pipelineParts, wantedOutputs, zeroFeeds, type Frame, type Tensor } from "@fieldloop/runtime";
import {
  DEFAULT_SPIN_DURATION_US,
  openBareRunner,
  openModel,
  openPackage,
  type LoadedModel,
} from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { parseNumber, parsePositiveInteger, versionOf } from "./model-options.js";

interface BenchFlags {
  readonly seconds: number;
  readonly threads: number;
  readonly variant?: string;
  readonly json?: boolean;
}

/** Runs of one kind before the other kind's turn: short enough that both meet the same state of the machine. */
const BLOCK_MS = 50;

interface Timing {
  readonly runs: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
  readonly meanMs: number;
  readonly perSecond: number;
}

export function registerModelBench(model: Command): void {
  model
    .command("bench")
    .description("Time predictions beside bare ONNX Runtime on the same variant, in turns within one run")
    .argument("<dir>", "package folder")
    .option("--seconds <n>", "how long to measure", parseNumber, 5)
    .option("--threads <n>", "threads inside one operator", parsePositiveInteger, 1)
    .option("--variant <name>", "instead of the one that suits this machine")
    .option("--json", "result as JSON")
    .action(action(bench));
}

async function bench(dir: string, flags: BenchFlags): Promise<void> {
  if (!(flags.seconds > 0 && flags.seconds <= 600)) {
    throw new FieldloopError(
      "invalid_argument",
      `Measure for ${flags.seconds} seconds: wanted more than 0, at most 600`,
    );
  }
  const pkg = await openPackage(dir);
  const model = await openModel(pkg, {
    threadCount: flags.threads,
    ...(flags.variant === undefined ? {} : { variant: flags.variant }),
  });
  let timings: { bare: Timing; predict: Timing };
  try {
    timings = await measure(model, flags);
  } finally {
    await model.release();
  }
  const { bare, predict } = timings;
  const ratio = predict.p50Ms / bare.p50Ms;
  const overheadMs = predict.p50Ms - bare.p50Ms;
  const variant = model.variant.name;
  if (flags.json) {
    printJson({
      version: versionOf(pkg.manifest),
      variant,
      threads: flags.threads,
      bare,
      predict,
      ratio,
      overheadMs,
    });
    return;
  }
  const row = (what: string, timing: Timing): string[] => [
    what,
    String(timing.runs),
    ...[timing.p50Ms, timing.p95Ms, timing.p99Ms].map((ms) => ms.toFixed(3)),
    timing.perSecond.toFixed(0),
  ];
  printTable([
    ["", "runs", "p50 ms", "p95 ms", "p99 ms", "per second"],
    row("bare ONNX Runtime", bare),
    row("predict", predict),
  ]);
  process.stdout.write(
    `${versionOf(pkg.manifest)} (${variant}): predict takes ${ratio.toFixed(2)} times the bare run, ${(overheadMs * 1000).toFixed(0)} µs more at p50\n`,
  );
}

async function measure(model: LoadedModel, flags: BenchFlags): Promise<{ bare: Timing; predict: Timing }> {
  const frame = exampleFrame(model.manifest.inputs);
  const { feeds } = await model.prepare(frame);
  const bare = await openBareParts(model, feeds, flags.threads);
  try {
    note(`measuring for ${flags.seconds} s`);
    const bareMs: number[] = [];
    const predictMs: number[] = [];
    await block(bare.run, []);
    await block(() => model.predict(frame), []);
    const end = performance.now() + flags.seconds * 1000;
    while (performance.now() < end) {
      await block(bare.run, bareMs);
      await block(() => model.predict(frame), predictMs);
    }
    return { bare: timingOf(bareMs), predict: timingOf(predictMs) };
  } finally {
    await bare.release();
  }
}

/** Every part of the model once: the root on the frame's feeds, further nodes of a pipeline on zeros. */
async function openBareParts(
  model: LoadedModel,
  feeds: Readonly<Record<string, Tensor>>,
  threadCount: number,
): Promise<{ run: () => Promise<void>; release: () => Promise<void> }> {
  const { manifest, executionProvider } = model;
  const inputs = new Map(pipelineParts(manifest).map((part) => [part.name, part.inputs]));
  const options = { threadCount, executionProvider, spinDurationUs: DEFAULT_SPIN_DURATION_US };
  const runners: Awaited<ReturnType<typeof openBareRunner>>[] = [];
  for (const { name, variant } of model.parts) {
    const fed = name === ROOT_NODE ? feeds : zeroFeeds(inputs.get(name)!);
    if (fed === undefined) continue;
    const path = join(model.package.dir, variant.file);
    runners.push(await openBareRunner(path, options, fed, wantedOutputs(manifest, name)));
  }
  return {
    run: async () => {
      for (const runner of runners) await runner.run();
    },
    release: async () => {
      for (const runner of runners) await runner.release();
    },
  };
}

async function block(run: () => Promise<unknown>, into: number[]): Promise<void> {
  const end = performance.now() + BLOCK_MS;
  let at: number;
  do {
    const start = performance.now();
    await run();
    at = performance.now();
    into.push(at - start);
  } while (at < end);
}

function timingOf(samples: number[]): Timing {
  const sorted = [...samples].sort((a, b) => a - b);
  const quantile = (q: number): number => sorted[Math.min(Math.floor(q * sorted.length), sorted.length - 1)]!;
  const meanMs = samples.reduce((sum, ms) => sum + ms, 0) / samples.length;
  return {
    runs: samples.length,
    p50Ms: quantile(0.5),
    p95Ms: quantile(0.95),
    p99Ms: quantile(0.99),
    meanMs,
    perSecond: 1000 / meanMs,
  };
}

/** A frame as a source delivers it: pixels of the input's size, a window, or zero tensors. */
function exampleFrame(inputs: readonly ModelInput[]): Frame {
  const input = inputs[0]!;
  if (inputs.length === 1 && input.kind === "image") {
    const channels = input.colour === "gray" ? 1 : 3;
    const data = Uint8Array.from(
      { length: input.width * input.height * channels },
      (_, at) => (at * 37) & 0xff,
    );
    return { kind: "pixels", data, width: input.width, height: input.height, channels };
  }
  if (inputs.length === 1 && input.kind === "window") {
    return {
      kind: "window",
      samples: Float32Array.from({ length: input.length * input.channels }, (_, at) => Math.sin(at / 7)),
    };
  }
  const feeds = zeroFeeds(inputs);
  if (feeds === undefined) {
    throw new FieldloopError("package_incompatible", "Measure model: it takes text, which has no example");
  }
  return { kind: "tensors", feeds };
}
