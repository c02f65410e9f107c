import { FieldloopError } from "@fieldloop/protocol";
import type { Backend, Session } from "../backend.js";
import type { LeftNode } from "./convert.js";
import type { SearchResult } from "./search.js";
import type { Feeds, KernelReport, LayerReport, OutputReport } from "./types.js";

export type QuantizeMethod = "static" | "dynamic" | "fp16" | "fp16-storage" | "int4";

export interface SpeedReport {
  readonly threads: number;
  /** Counted runs of each model, in turns. */
  readonly runs: number;
  readonly floatMs: number;
  readonly variantMs: number;
}

export interface AccuracyReport {
  /** What is counted. */
  readonly metric: "accuracy" | "agreement" | "closeness";
  /** Inputs, none of which was calibrated on. */
  readonly samples: number;
  readonly float: number;
  readonly variant: number;
}

/** Everything that is known about one made variant; what `fieldloop model quantize` prints and keeps. */
export interface VariantReport {
  readonly method: QuantizeMethod;
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Nodes that the method could convert, and how many it did. */
  readonly nodesConvertible: number;
  readonly nodesConverted: number;
  readonly kernels: KernelReport;
  /** Static quantization only. */
  readonly layers: readonly LayerReport[];
  readonly outputs: readonly OutputReport[];
  readonly left: readonly LeftNode[];
  readonly warnings: readonly string[];
  readonly speed?: SpeedReport;
  readonly accuracy?: AccuracyReport;
  readonly search?: Pick<SearchResult, "found" | "keepFloat" | "evaluations" | "trail" | "sensitivities">;
  readonly base?: NearBaseReport;
}

/** How near a variant stayed to that of an earlier version. */
export interface NearBaseReport {
  /** See `LevelsRequest`; null where staying near cost accuracy at any cost, and the variant was rounded as if there were no base. */
  readonly changeCost: number | null;
  /** What travels to a device that has the base, and what would have travelled if the variant had been rounded. */
  readonly deltaBytes: number;
  readonly deltaBytesRounded: number;
  readonly metric: AccuracyReport["metric"];
  readonly samples: number;
  /** What was judged, in order; the first was rounded. */
  readonly trail: readonly { readonly changeCost: number | null; readonly accuracy: number }[];
}

export interface AcceptanceBounds {
  /** Accuracy, agreement or closeness that may be lost, 0..1. */
  readonly accuracyDropMax: number;
  /** Take a variant that is slower here, because it is meant for other machines or for its size. */
  readonly allowSlower: boolean;
}

/** A variant within this of the float model's time is not slower: medians of interleaved runs differ that much by chance. */
const SPEED_NOISE = 1.03;
/** Stored float16 becomes float32 while loading and then runs the same kernels. */
const SPEED_NOISE_STORAGE = 1.15;
const NAMES_SHOWN_MAX = 6;

/** Runs of one model in its turn, the first of which is not counted. */
const TURN_RUNS = 8;

/**
 * Medians of runs of two models on the same inputs, in turns, so that both meet the same state of the machine. A turn is several runs,
 * as a device runs one model: its first brings back to the cache what the other model pushed out, and is left out. `now` is a monotonic
 * clock in milliseconds.
 */
export async function measureSpeed(
  floatBytes: Uint8Array,
  variantBytes: Uint8Array,
  inputs: readonly Feeds[],
  options: {
    readonly backend: Backend;
    readonly threadCount: number;
    readonly now: () => number;
    /** Time to spend; at least `runsMin` runs of each are made. */
    readonly durationMs: number;
    readonly runsMin?: number;
    readonly signal?: AbortSignal;
  },
): Promise<SpeedReport> {
  const { backend, threadCount, now } = options;
  const open = (bytes: Uint8Array) =>
    backend.openSession(bytes, { threadCount, executionProvider: "cpu", spinDurationUs: 500 });
  const float = await open(floatBytes);
  try {
    const variant = await open(variantBytes);
    try {
      const floatMs: number[] = [];
      const variantMs: number[] = [];
      for (let warm = 0; warm < 3; warm++) {
        await float.run(inputs[warm % inputs.length]!);
        await variant.run(inputs[warm % inputs.length]!);
      }
      const takeTurn = async (session: Session, times: number[]): Promise<void> => {
        for (let run = 0; run < TURN_RUNS; run++) {
          const begin = now();
          await session.run(inputs[run % inputs.length]!);
          if (run > 0) times.push(now() - begin);
        }
      };
      const end = now() + options.durationMs;
      while (now() < end || floatMs.length < (options.runsMin ?? 11)) {
        options.signal?.throwIfAborted();
        await takeTurn(float, floatMs);
        await takeTurn(variant, variantMs);
      }
      return {
        threads: threadCount,
        runs: floatMs.length,
        floatMs: median(floatMs),
        variantMs: median(variantMs),
      };
    } finally {
      await variant.release();
    }
  } finally {
    await float.release();
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** Why a variant is not worth having, each with a figure; empty where it is. */
export function refusalReasons(report: VariantReport, bounds: AcceptanceBounds): string[] {
  const reasons: string[] = [];
  const { accuracy, speed } = report;
  const broken = report.outputs.find(({ cosine }) => Number.isNaN(cosine));
  if (broken) reasons.push(`output "${broken.name}" is not finite`);
  // Written so that NaN misses the bound too.
  if (accuracy && !(accuracy.float - accuracy.variant <= bounds.accuracyDropMax + 1e-12)) {
    reasons.push(
      `${accuracy.metric} falls by ${points(accuracy.float - accuracy.variant)} points (${points(accuracy.float)} to ${points(accuracy.variant)} % on ${accuracy.samples} inputs), at most ${points(bounds.accuracyDropMax)} allowed`,
    );
  }
  const noise = report.method === "fp16-storage" ? SPEED_NOISE_STORAGE : SPEED_NOISE;
  if (speed && !bounds.allowSlower && speed.variantMs > speed.floatMs * noise) {
    const times = (speed.variantMs / speed.floatMs).toFixed(2);
    reasons.push(
      `it takes ${times} times as long as float here (${speed.variantMs.toFixed(2)} against ${speed.floatMs.toFixed(2)} ms on ${speed.threads} thread${speed.threads === 1 ? "" : "s"})`,
    );
  }
  return reasons;
}

/**
 * Throws `quantization_rejected` with every reason, what did not fuse, and what to try, where a variant is slower or worse than its
 * bounds allow.
 */
export function requireWorth(report: VariantReport, bounds: AcceptanceBounds): void {
  const reasons = refusalReasons(report, bounds);
  if (reasons.length === 0) return;
  const parts = [`Quantize (${report.method}): ${reasons.join("; ")}`];
  const unfused = unfusedOf(report);
  if (unfused !== "") parts.push(unfused);
  const worst = report.layers.toSorted((a, b) => a.sqnrDb - b.sqnrDb)[0];
  const worse = reasons.some((reason) => reason.includes("falls by") || reason.includes("finite"));
  if (worse && worst) {
    parts.push(`worst layer "${worst.node}" (${worst.operator}) at ${worst.sqnrDb.toFixed(1)} dB`);
  }
  parts.push(`Try ${advice(report, worse).join(", ")}`);
  throw new FieldloopError("quantization_rejected", parts.join(". "), { detail: { reasons } });
}

/** Which products compute in float although the method is an integer one. */
function unfusedOf(report: VariantReport): string {
  if (report.method.startsWith("fp16")) {
    const { Cast: casts = 0 } = report.kernels.operators;
    return report.method === "fp16" && casts > 2
      ? `This machine has no float16 kernels for it: ${casts} Cast nodes run at the borders`
      : "";
  }
  const { floatNodes = [], integer } = report.kernels;
  if (floatNodes.length === 0) return "";
  const shown = floatNodes.slice(0, NAMES_SHOWN_MAX).join(", ");
  const more = floatNodes.length > NAMES_SHOWN_MAX ? ` and ${floatNodes.length - NAMES_SHOWN_MAX} more` : "";
  return `${integer} integer kernels run, ${floatNodes.length} products stay float: ${shown}${more}`;
}

function advice(report: VariantReport, worse: boolean): string[] {
  if (!worse) {
    const other = {
      static: report.settings["scheme"] === "s8s8" ? "--scheme u8s8 on a CPU" : "--method fp16 --storage",
      dynamic: "--method static with calibration inputs",
      fp16: "--method fp16 --storage",
      "fp16-storage": "a longer measurement",
      int4: "--accuracy-level 4 or --method dynamic",
    }[report.method];
    return [other, "--allow-slower if it is meant for other machines"];
  }
  switch (report.method) {
    case "static":
      return [
        ...(report.search ? [] : ["--search to leave the most harmful nodes in float"]),
        "another --calibration",
        "more calibration inputs",
        "a larger --accuracy-drop",
      ];
    case "int4":
      return ["a smaller --block-size", "--method dynamic"];
    case "dynamic":
    case "fp16":
    case "fp16-storage":
      return ["--keep-float for the most harmful nodes", "a larger --accuracy-drop"];
  }
}

function points(share: number): string {
  return (100 * share).toFixed(2);
}
