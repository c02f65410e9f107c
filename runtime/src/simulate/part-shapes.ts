/**
 * The machine parts as signed distance functions in a frame of about radius 1: negative inside, positive
 * outside, slope about 1, so that the distance in pixels gives the anti-aliasing and the bevel for nothing.
 */
import type { Random } from "./random.js";

/** Classes that the shipped `parts` model knows, in the order of its logits. */
export const partClasses = ["washer", "nut", "bolt", "gear", "bracket", "spring"] as const;

/** A part type that is in no training data: the "new part" of the field. */
export const newPartClass = "clip";

export type PartClass = (typeof partClasses)[number] | typeof newPartClass;

/** Signed distance at (x, y), in part radii. */
export type Distance = (x: number, y: number) => number;

function box(x: number, y: number, halfWidth: number, halfHeight: number): number {
  const dx = Math.abs(x) - halfWidth;
  const dy = Math.abs(y) - halfHeight;
  const outside = Math.sqrt(Math.max(dx, 0) ** 2 + Math.max(dy, 0) ** 2);
  return outside + Math.min(Math.max(dx, dy), 0);
}

const length = (x: number, y: number): number => Math.sqrt(x * x + y * y);

function washer(random: Random): Distance {
  const outer = random.range(0.72, 0.92);
  const hole = outer * random.range(0.5, 0.68);
  return (x, y) => {
    const r = length(x, y);
    return Math.max(r - outer, hole - r);
  };
}

function nut(random: Random): Distance {
  const flat = random.range(0.7, 0.82);
  const hole = flat * random.range(0.36, 0.5);
  // A chamfer rounds the corners of the hexagon: a worn nut comes close to a washer.
  const chamfer = flat * random.range(1.105, 1.155);
  return (x, y) => {
    const r = length(x, y);
    const ax = Math.abs(x);
    const hexagon = Math.max(ax, ax * 0.5 + Math.abs(y) * 0.8660254) - flat;
    return Math.max(hexagon, r - chamfer, hole - r);
  };
}

function bolt(random: Random): Distance {
  const shaft = random.range(0.16, 0.23);
  const end = random.range(0.72, 0.98);
  const head = random.range(0.36, 0.48);
  const headLength = random.range(0.16, 0.24);
  const pitch = random.range(38, 50);
  return (x, y) => {
    const headPart = box(x + 0.74, y, headLength, head);
    const thread = x > -0.1 ? 0.03 * Math.sin(x * pitch) : 0;
    const shaftPart = box(x - (end - 0.7) / 2, y, (end + 0.7) / 2, shaft + thread);
    return Math.min(headPart, shaftPart);
  };
}

function gear(random: Random): Distance {
  const teeth = 8 + random.int(5);
  const depth = random.range(0.07, 0.12);
  const middle = random.range(0.74, 0.84);
  const hole = random.range(0.2, 0.42);
  return (x, y) => {
    const r = length(x, y);
    const wave = Math.cos(teeth * Math.atan2(y, x)) * 2.4;
    const rim = middle + depth * Math.max(-1, Math.min(1, wave));
    return Math.max((r - rim) * 0.8, hole - r);
  };
}

function bracket(random: Random): Distance {
  const width = random.range(0.23, 0.3);
  const armX = random.range(0.68, 0.85);
  const armY = random.range(0.68, 0.85);
  const hole = width * random.range(0.4, 0.6);
  return (x, y) => {
    const upright = box(x + 0.5, y, width, armY);
    const foot = box(x + 0.5 - armX + width, y + armY - width, armX, width);
    const holes =
      Math.min(length(x + 0.5, y - armY * 0.55), length(x - armX + 0.35, y + armY - width)) - hole;
    return Math.max(Math.min(upright, foot), -holes);
  };
}

function spring(random: Random): Distance {
  const coils = 4.5 + random.int(4);
  const half = random.range(0.78, 0.96);
  const amplitude = random.range(0.26, 0.38);
  const wire = random.range(0.06, 0.085);
  const wave = (Math.PI * coils) / half;
  return (x, y) => {
    const slope = amplitude * wave * Math.cos(wave * x);
    const strand = Math.abs(y - amplitude * Math.sin(wave * x)) / Math.sqrt(1 + slope * slope);
    return Math.max(strand - wire, Math.abs(x) - half, Math.abs(y) - amplitude - wire);
  };
}

/** An open retaining ring with a lug at each end. */
function clip(random: Random): Distance {
  const middle = random.range(0.6, 0.7);
  const half = random.range(0.11, 0.15);
  const gap = random.range(0.3, 0.5);
  return (x, y) => {
    const r = length(x, y);
    const ring = Math.max(Math.abs(r - middle) - half, gap * 0.8 - (x > 0 ? Math.abs(y) : gap));
    const lug = length(x - middle - 0.1, Math.abs(y) - gap) - half * 1.6;
    return Math.min(ring, lug);
  };
}

const shapes: Record<PartClass, (random: Random) => Distance> = {
  washer,
  nut,
  bolt,
  gear,
  bracket,
  spring,
  clip,
};

/** One individual of a class: proportions, teeth and coils are drawn from `random`. */
export function drawPart(label: PartClass, random: Random): Distance {
  return shapes[label](random);
}
