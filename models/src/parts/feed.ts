import {
  type Random,
  hashText,
  partClasses,
  partsFrameSize,
  Random as Stream,
} from "@fieldloop/runtime/simulate";
import { type Augment, epochOrder, type TrainingRows, type TrainingStream } from "@fieldloop/runtime/train";
import { frameBytes, normalized, type PartsFrames } from "./data.js";

/** Share of rows that show what nobody could name, trained towards "any class": see {@link createPartsFeed}. */
const doubtShare = 0.11;
/** Light of such rows, as a factor on the frame's own: far below the training range, which starts at 0.82. */
const doubtGain = [0.05, 0.45] as const;

const side = partsFrameSize;
const plane = side * side;

/**
 * Mirrors and turns a row (CHW) in place by one of the eight symmetries of the square: a part on a belt lies any way
 * round.
 */
export const turnFrame: Augment = (row: Float32Array, random: Random): void => {
  const choice = random.int(8);
  if (choice === 0) return;
  const source = row.slice();
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const across = choice & 1 ? side - 1 - x : x;
      const down = choice & 2 ? side - 1 - y : y;
      const from = choice & 4 ? across * side + down : down * side + across;
      const to = y * side + x;
      row[to] = source[from];
      row[plane + to] = source[plane + from];
      row[2 * plane + to] = source[2 * plane + from];
    }
  }
};

/**
 * Training rows made on demand (all in memory as floats would be 350 MB). A share of them is lit far below the
 * training range and has the uniform distribution as its target, so that the network answers what it was not made for
 * with doubt instead of a random class (outlier exposure: Hendrycks et al. 2019, "Deep anomaly detection with
 * outlier exposure"): that is what lets a device tell which of its frames are worth a look.
 */
export function createPartsFeed(frames: PartsFrames, seed: number, batch: number): TrainingStream {
  const total = frames.labels.length;
  const stepsPerEpoch = Math.floor(total / batch);
  const classCount = partClasses.length;
  let order: { epoch: number; places: Uint32Array } = { epoch: -1, places: new Uint32Array() };
  return {
    stepsPerEpoch,
    next(step: number, count: number): TrainingRows {
      const epoch = Math.floor(step / stepsPerEpoch);
      if (order.epoch !== epoch) order = { epoch, places: epochOrder(total, seed, epoch) };
      const inputs = new Float32Array(count * frameBytes);
      const targets = new Float32Array(count * classCount);
      for (let row = 0; row < count; row++) {
        const random = new Stream(seed, hashText("row"), step, row);
        const place = order.places[((step % stepsPerEpoch) * count + row) % total];
        const pixels = frames.pixels.subarray(place * frameBytes, (place + 1) * frameBytes);
        const input = inputs.subarray(row * frameBytes, (row + 1) * frameBytes);
        const target = targets.subarray(row * classCount, (row + 1) * classCount);
        if (random.uniform() < doubtShare) {
          fillDark(input, pixels, random);
          target.fill(1 / classCount);
        } else {
          fillFrame(input, pixels);
          target[frames.labels[place]] = 1;
        }
        turnFrame(input, random);
      }
      return { inputs, targets };
    },
  };
}

function fillFrame(input: Float32Array, pixels: Uint8Array): void {
  for (let pixel = 0, from = 0; pixel < plane; pixel++, from += 3) {
    input[pixel] = normalized[pixels[from]];
    input[plane + pixel] = normalized[pixels[from + 1]];
    input[2 * plane + pixel] = normalized[pixels[from + 2]];
  }
}

/** The frame under hardly any light, of any colour between warm and cold, with the sensor's own noise. */
function fillDark(input: Float32Array, pixels: Uint8Array, random: Random): void {
  const gain = random.range(doubtGain[0], doubtGain[1]);
  const warmth = random.range(-1.5, 1.5);
  const factors = [gain * 1.1 ** warmth, gain * 0.95 ** warmth, gain * 0.8 ** warmth];
  for (let pixel = 0, from = 0; pixel < plane; pixel++) {
    for (let channel = 0; channel < 3; channel++, from++) {
      const level = pixels[from] * factors[channel] + 2.5 * random.normal();
      input[channel * plane + pixel] = normalized[Math.max(0, Math.min(255, Math.round(level)))];
    }
  }
}
