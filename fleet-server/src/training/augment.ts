import type { ImageInput, ModelInput } from "@fieldloop/protocol";
import type { Random } from "@fieldloop/runtime/simulate";
import type { Augment } from "@fieldloop/runtime/train";

/**
 * What a model's inputs may be changed by without changing their label; the version says it in its lineage (`augment`).
 * `shift` moves an image by a few pixels; `turn` also mirrors and turns it, for things that have no right way up.
 */
export const AUGMENTATIONS = ["none", "shift", "turn"] as const;
export type Augmentation = (typeof AUGMENTATIONS)[number];

/** Largest shift, as a share of the side. */
const SHIFT_SHARE = 1 / 32;

export function augmentationOf(setting: unknown): Augmentation {
  return AUGMENTATIONS.find((known) => known === setting) ?? "shift";
}

/** Windows of a signal are left as they are. */
export function makeAugment(input: ModelInput, augmentation: Augmentation): Augment | undefined {
  if (input.kind !== "image" || augmentation === "none") return undefined;
  return (row, random) => {
    const move = makeMove(input, augmentation, random);
    const source = row.slice();
    const { width, height, layout } = input;
    const channels = row.length / (width * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = move(x, y);
        const to = y * width + x;
        for (let channel = 0; channel < channels; channel++) {
          if (layout === "nchw")
            row[channel * width * height + to] = source[channel * width * height + from]!;
          else row[to * channels + channel] = source[from * channels + channel]!;
        }
      }
    }
  };
}

/** Where the pixel at (x, y) comes from; beyond the border, the border's pixel. */
function makeMove(
  input: ImageInput,
  augmentation: Augmentation,
  random: Random,
): (x: number, y: number) => number {
  const { width, height } = input;
  const reachX = Math.round(width * SHIFT_SHARE);
  const reachY = Math.round(height * SHIFT_SHARE);
  const shiftX = random.int(2 * reachX + 1) - reachX;
  const shiftY = random.int(2 * reachY + 1) - reachY;
  const turn = augmentation === "turn" ? random.int(8) : 0;
  return (x, y) => {
    let across = Math.min(Math.max(x + shiftX, 0), width - 1);
    let down = Math.min(Math.max(y + shiftY, 0), height - 1);
    if (turn & 1) across = width - 1 - across;
    if (turn & 2) down = height - 1 - down;
    // Only a square can be turned by a quarter.
    if (turn & 4 && width === height) [across, down] = [down, across];
    return down * width + across;
  };
}
