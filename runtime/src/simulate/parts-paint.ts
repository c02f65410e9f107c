/** Paints belt and part as light (RGB, HWC, 0..255 scale) before the camera has its say. */
import { drawPart, type PartClass } from "./part-shapes.js";
import { hashText, Random } from "./random.js";

/** Where a part lies: centre in pixels, radius in pixels, turn in radians. */
export interface PartPose {
  readonly x: number;
  readonly y: number;
  readonly radiusPx: number;
  readonly turnRad: number;
  /** Stretch of one axis by the camera's tilt. */
  readonly stretch: number;
}

const textureSize = 128;

/** Smooth noise in [-1, 1] that tiles: two octaves of value noise plus grain. The belt's rubber. */
const texture: Float32Array = (() => {
  const random = new Random(hashText("belt texture"));
  const field = new Float32Array(textureSize * textureSize);
  for (const [cell, weight] of [
    [16, 0.45],
    [4, 0.3],
    [1, 0.35],
  ] as const) {
    const count = textureSize / cell;
    const corners = Float32Array.from({ length: count * count }, () => random.range(-1, 1));
    for (let y = 0; y < textureSize; y++) {
      for (let x = 0; x < textureSize; x++) {
        field[y * textureSize + x] += weight * sampleCells(corners, count, x / cell, y / cell);
      }
    }
  }
  return field;
})();

function sampleCells(corners: Float32Array, count: number, x: number, y: number): number {
  const x0 = Math.floor(x);
  const y0 = Math.floor(y);
  const fx = x - x0;
  const fy = y - y0;
  const x1 = (x0 + 1) % count;
  const y1 = (y0 + 1) % count;
  const top = corners[y0 * count + x0] * (1 - fx) + corners[y0 * count + x1] * fx;
  const bottom = corners[y1 * count + x0] * (1 - fx) + corners[y1 * count + x1] * fx;
  return top * (1 - fy) + bottom * fy;
}

/** Dark rubber with grain, wear and, now and then, a seam or a scratch across it. */
export function paintBelt(light: Float32Array, size: number, random: Random): void {
  const dx = random.int(textureSize);
  const dy = random.int(textureSize);
  const base = random.range(58, 96);
  const grain = random.range(8, 16);
  const seam = random.uniform() < 0.3 ? random.range(0, size) : -100;
  const scratch = random.uniform() < 0.3 ? random.range(0, size) : -100;
  const slope = random.range(-0.3, 0.3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const rubber = texture[((y + dy) % textureSize) * textureSize + ((x + dx) % textureSize)];
      const weave = ((x ^ y) & 1) * 3;
      let level = base + grain * rubber + weave;
      if (Math.abs(x - seam) < 1.2) level *= 0.6;
      if (Math.abs(y - scratch - slope * x) < 0.7) level += 26;
      const at = (y * size + x) * 3;
      light[at] = level * 0.94;
      light[at + 1] = level * 1.02;
      light[at + 2] = level;
    }
  }
}

const alloys: readonly (readonly [number, number, number])[] = [
  [168, 172, 178],
  [150, 152, 154],
  [178, 168, 146],
  [142, 148, 160],
];

/** Draws an individual of the class somewhere near the middle, with bevelled edges, brushed metal and a shadow. */
export function paintPart(
  light: Float32Array,
  size: number,
  label: PartClass,
  lightRad: number,
  random: Random,
): PartPose {
  const pose: PartPose = {
    x: size / 2 + random.range(-7, 7),
    y: size / 2 + random.range(-7, 7),
    radiusPx: random.range(16.5, 23),
    turnRad: random.range(0, 2 * Math.PI),
    stretch: random.range(0.9, 1.1),
  };
  const distances = measure(label, pose, size, random);
  shade(light, distances, size, lightRad, random);
  return pose;
}

/** Signed distances in pixels on a grid with a border of one pixel, for slopes at the edge. */
function measure(label: PartClass, pose: PartPose, size: number, random: Random): Float32Array {
  const distance = drawPart(label, random);
  const width = size + 2;
  const field = new Float32Array(width * width);
  const cos = Math.cos(pose.turnRad) / pose.radiusPx;
  const sin = Math.sin(pose.turnRad) / pose.radiusPx;
  for (let row = 0; row < width; row++) {
    const py = row - 0.5 - pose.y;
    for (let column = 0; column < width; column++) {
      const px = column - 0.5 - pose.x;
      const u = (px * cos + py * sin) * pose.stretch;
      const v = (py * cos - px * sin) / pose.stretch;
      // Far from the part the exact distance matters to nobody.
      field[row * width + column] =
        u * u + v * v > 2.2 ? pose.radiusPx * 0.4 : distance(u, v) * pose.radiusPx;
    }
  }
  return field;
}

function shade(
  light: Float32Array,
  field: Float32Array,
  size: number,
  lightRad: number,
  random: Random,
): void {
  const width = size + 2;
  const metal = alloys[random.int(alloys.length)];
  const tone = random.range(0.85, 1.25);
  const brush = random.range(3, 9);
  const brushRow = random.int(textureSize);
  const bevelPx = random.range(1.8, 3);
  const lampX = Math.cos(lightRad) * 0.6;
  const lampY = Math.sin(lightRad) * 0.6;
  const shadowAt = Math.round(-lampY * 4) * width + Math.round(-lampX * 4);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const at = (y + 1) * width + x + 1;
      const pixel = (y * size + x) * 3;
      const d = field[at];
      const shadowCell = Math.max(0, Math.min(field.length - 1, at - shadowAt));
      const shadow = 0.45 * clamp01(0.5 - field[shadowCell] / 3);
      const cover = clamp01(0.5 - d);
      let metalLevel = 0;
      if (cover > 0) {
        const bevel = clamp01(1 + d / bevelPx);
        const nx = clampUnit((field[at + 1] - field[at - 1]) * 0.5) * bevel;
        const ny = clampUnit((field[at + width] - field[at - width]) * 0.5) * bevel;
        const lit = 0.8 + 0.55 * (nx * lampX + ny * lampY);
        const facing = Math.max(0, nx * lampX + ny * lampY);
        const grain = brush * texture[((y + brushRow) % textureSize) * textureSize + (x >> 3)];
        metalLevel = tone * (lit + 0.35 * facing * facing * facing) + grain / 150;
      }
      for (let channel = 0; channel < 3; channel++) {
        const belt = light[pixel + channel] * (1 - shadow);
        light[pixel + channel] = belt * (1 - cover) + metal[channel] * metalLevel * cover;
      }
    }
  }
}

/** Thin wires fold the distance field; their slope is no steeper than any other. */
function clampUnit(value: number): number {
  return value < -1 ? -1 : value > 1 ? 1 : value;
}

function clamp01(value: number): number {
  return value < 0 ? 0 : value > 1 ? 1 : value;
}
