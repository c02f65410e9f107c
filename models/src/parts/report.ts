import type { Backend, Baseline } from "@fieldloop/runtime";
import { type CameraConditionName, createPartsScene } from "@fieldloop/runtime/simulate";
import { areaUnderRoc, round } from "../recipe.js";
import { percent, type SummaryRow } from "../summary.js";
import type { Recovery } from "./recover.js";
import { drawFrames, frameBytes, type PartsFrames, partsSeeds } from "./data.js";
import { type Accuracy, accuracyOf, doubtsOf, runParts } from "./evaluate.js";

export interface ConditionAccuracy {
  readonly frames: number;
  readonly fp32: Accuracy;
  readonly int8: Accuracy;
  /** Of fp32, over the cameras. */
  readonly lowestCamera: number;
  readonly highestCamera: number;
}

interface Measured {
  readonly backend: Backend;
  readonly fp32: Uint8Array;
  readonly temperature: number;
  readonly baseline: Baseline;
}

/** Accuracy of both variants on cameras that no set above has seen, healthy and degraded. */
export async function measureParts(
  options: Measured & { readonly int8: Uint8Array },
): Promise<{ readonly normal: ConditionAccuracy; readonly degraded: ConditionAccuracy }> {
  const measure = async (seed: number, condition: CameraConditionName): Promise<ConditionAccuracy> => {
    const perDevice = 100;
    const frames = await drawFrames({ seed, devices: 15, perDevice, condition, jpeg: "all" });
    const fp32 = await runParts(options.fp32, options.backend, frames);
    const int8 = await runParts(options.int8, options.backend, frames);
    const cameras = Array.from({ length: frames.labels.length / perDevice }, (_, camera) => {
      const from = camera * perDevice;
      const logits = fp32.logits.subarray((from * fp32.logits.length) / frames.labels.length);
      return accuracyOf(logits, frames.labels.subarray(from, from + perDevice)).overall;
    });
    return {
      frames: frames.labels.length,
      fp32: rounded(accuracyOf(fp32.logits, frames.labels)),
      int8: rounded(accuracyOf(int8.logits, frames.labels)),
      lowestCamera: round(Math.min(...cameras)),
      highestCamera: round(Math.max(...cameras)),
    };
  };
  return {
    normal: await measure(partsSeeds.test, "normal"),
    degraded: await measure(partsSeeds.degraded + 50, "degraded"),
  };
}

function rounded(accuracy: Accuracy): Accuracy {
  const perClass = Object.fromEntries(
    Object.entries(accuracy.perClass).map(([name, value]) => [name, round(value)]),
  );
  return { overall: round(accuracy.overall), perClass };
}

/** How well each score tells the part type that the model never saw from those it knows (area under the ROC curve). */
export async function measureNewPart(
  options: Measured & { readonly label: string },
): Promise<Record<string, string | number>> {
  const known = await drawFrames({
    seed: partsSeeds.test + 20,
    devices: 4,
    perDevice: 100,
    condition: "normal",
    jpeg: "none",
  });
  const unknown = drawNewParts(partsSeeds.test + 30, 300);
  const doubts = async (frames: PartsFrames) =>
    doubtsOf(await runParts(options.fp32, options.backend, frames), options.temperature, options.baseline);
  const [a, b] = [await doubts(unknown), await doubts(known)];
  const auroc = (score: (doubt: (typeof a)[number]) => number): number =>
    round(areaUnderRoc(a.map(score), b.map(score)));
  return {
    label: options.label,
    frames: a.length,
    noveltyAuroc: auroc((doubt) => doubt.novelty),
    entropyAuroc: auroc((doubt) => doubt.entropy),
    worthAuroc: auroc((doubt) => doubt.worth),
  };
}

function drawNewParts(seed: number, count: number): PartsFrames {
  const scene = createPartsScene({ seed, condition: "normal", newPartShare: 1 });
  const pixels = new Uint8Array(count * frameBytes);
  for (let at = 0; at < count; at++) pixels.set(scene.next().pixels, at * frameBytes);
  return { pixels, labels: new Uint8Array(count) };
}

/** The table for people. */
export function summarize(found: {
  readonly measured: Awaited<ReturnType<typeof measureParts>>;
  readonly newPart: Readonly<Record<string, string | number>>;
  readonly latency: Readonly<Record<"fp32" | "int8", { readonly p50Ms: number }>>;
  readonly recovery: readonly Recovery[];
  readonly bytes: number;
}): SummaryRow[] {
  const { measured, newPart, latency, recovery } = found;
  const { normal, degraded } = measured;
  const both = ({ fp32, int8 }: typeof normal) => `${percent(fp32.overall)} / ${percent(int8.overall)}`;
  const rows: SummaryRow[] = [
    [`accuracy in normal light, ${normal.frames} frames of new cameras (fp32 / int8)`, both(normal)],
    [`accuracy in degraded light (fp32 / int8)`, both(degraded)],
    [
      "degraded, worst and best camera",
      `${percent(degraded.lowestCamera)}, ${percent(degraded.highestCamera)}`,
    ],
  ];
  for (const each of recovery) {
    rows.push([
      `cameras ${each.seed} and ${each.seed + 1}: normal, degraded, after 300 labels`,
      `${percent(each.normal)}, ${percent(each.degraded)}, ${percent(each.recovered)}`,
    ]);
    rows.push([
      "– old data before, after; real errors among the 5 % worth most",
      `${percent(each.oldBefore)}, ${percent(each.oldAfter)}; ${percent(each.precision.worth)}`,
    ]);
  }
  rows.push(
    [`AUROC of novelty for the new part "${newPart["label"]}"`, String(newPart["noveltyAuroc"])],
    ["one frame, median (fp32 / int8)", `${latency.fp32.p50Ms} / ${latency.int8.p50Ms} ms`],
    ["package", `${found.bytes} bytes`],
  );
  return rows;
}
