import { HISTOGRAM_BINS, type Manifest } from "@fieldloop/protocol";
import {
  type Backend,
  type Baseline,
  type NoveltyReference,
  Predictor,
  ProfileAccumulator,
} from "@fieldloop/runtime";
import { prepareImage } from "@fieldloop/runtime/node";
import { partsFrameSize } from "@fieldloop/runtime/simulate";
import { recipeThreads } from "../recipe.js";
import { frameBytes, type PartsFrames } from "./data.js";
import { partsInterface } from "./manifest.js";

/**
 * What healthy looks like: the profile that a device would report over these frames, by the very code that the device
 * runs. Latency is left empty: it belongs to a device, not to a model.
 */
export async function measureBaseline(options: {
  readonly backend: Backend;
  readonly fp32: Uint8Array;
  readonly temperature: number;
  readonly novelty: NoveltyReference;
  readonly frames: PartsFrames;
}): Promise<Baseline> {
  const { backend, fp32, novelty, frames } = options;
  const session = await backend.openSession(fp32, { threadCount: recipeThreads, executionProvider: "cpu" });
  const profile = new ProfileAccumulator();
  const predictor = new Predictor({
    manifest: partsInterface(options.temperature) as Manifest,
    session,
    sizeImage: prepareImage,
    baseline: { statistics: profile.snapshot(), novelty },
    now: () => performance.now(),
  });
  try {
    for (let at = 0; at < frames.labels.length; at++) {
      const data = frames.pixels.subarray(at * frameBytes, (at + 1) * frameBytes);
      profile.add(
        await predictor.predict({
          kind: "pixels",
          data,
          width: partsFrameSize,
          height: partsFrameSize,
          channels: 3,
        }),
      );
    }
  } finally {
    await session.release();
  }
  const latency = new Array<number>(HISTOGRAM_BINS).fill(0);
  return { statistics: { ...profile.snapshot(), latency }, novelty };
}
