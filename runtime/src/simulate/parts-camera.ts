/** The way from light to 8-bit pixels: lamp, dirt on the lens, blur, sensor. All buffers are RGB, HWC, 0..255 scale. */
import type { CameraCondition, Interval } from "./parts-condition.js";
import { hashText, Random } from "./random.js";

/** The drawn values of one frame, kept as part of its truth. */
export interface CameraDraw {
  readonly gain: number;
  readonly cast: readonly [number, number, number];
  readonly gradient: number;
  /** Direction towards the lamp, radians in image axes (y down). */
  readonly lightRad: number;
  readonly blurSigmaPx: number;
  readonly noise: number;
}

/** What dirt does to each pixel: `light * pass + haze`. */
export interface LensDirt {
  readonly pass: Float32Array;
  readonly haze: Float32Array;
}

const inside = (random: Random, interval: Interval): number => random.range(interval[0], interval[1]);

/** Draws the camera's values for one frame; `lightFrom: "device"` keeps the lamp where it stands. */
export function drawCamera(condition: CameraCondition, deviceSeed: number, random: Random): CameraDraw {
  const frameRad = random.range(0, 2 * Math.PI);
  const deviceRad = new Random(deviceSeed, hashText("lamp")).range(0, 2 * Math.PI);
  return {
    gain: inside(random, condition.gain),
    cast: [
      inside(random, condition.cast[0]),
      inside(random, condition.cast[1]),
      inside(random, condition.cast[2]),
    ],
    gradient: inside(random, condition.gradient),
    lightRad: condition.lightFrom === "device" ? deviceRad : frameRad,
    blurSigmaPx: inside(random, condition.blurSigmaPx),
    noise: inside(random, condition.noise),
  };
}

/**
 * The dirt on one device's lens: specks (dark, soft discs) and a smear of oil (a streaky, hazy ellipse off the
 * middle). A pure function of device and condition, so that it stays where it is from frame to frame.
 */
export function drawLensDirt(condition: CameraCondition, deviceSeed: number, size: number): LensDirt {
  const pass = new Float32Array(size * size).fill(1);
  const haze = new Float32Array(size * size);
  addSpecks(pass, condition.specks, new Random(deviceSeed, hashText("specks")), size);
  if (condition.oil > 0) addOil(pass, haze, condition.oil, new Random(deviceSeed, hashText("oil")), size);
  return { pass, haze };
}

function addSpecks(pass: Float32Array, count: number, random: Random, size: number): void {
  for (let speck = 0; speck < count; speck++) {
    const cx = random.range(0, size);
    const cy = random.range(0, size);
    const radius = random.range(0.01, 0.03) * size;
    const depth = random.range(0.3, 0.65);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const far = ((x - cx) ** 2 + (y - cy) ** 2) / (radius * radius);
        if (far < 4) pass[y * size + x] *= 1 - depth * Math.exp(-far * far);
      }
    }
  }
}

function addOil(
  pass: Float32Array,
  haze: Float32Array,
  strength: number,
  random: Random,
  size: number,
): void {
  const towards = random.range(0, 2 * Math.PI);
  const cx = size * (0.5 + 0.2 * Math.cos(towards));
  const cy = size * (0.5 + 0.2 * Math.sin(towards));
  const turn = random.range(0, Math.PI);
  const long = size * random.range(0.3, 0.4);
  const short = size * random.range(0.16, 0.24);
  const streak = random.range(0.35, 0.6);
  const phase = random.range(0, 2 * Math.PI);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const along = (x - cx) * Math.cos(turn) + (y - cy) * Math.sin(turn);
      const across = (y - cy) * Math.cos(turn) - (x - cx) * Math.sin(turn);
      const far = (along / long) ** 2 + (across / short) ** 2;
      if (far > 4) continue;
      const wiped = 0.7 + 0.3 * Math.sin(across * streak + phase + 0.15 * along);
      const cover = strength * wiped * Math.exp(-far * far);
      const at = y * size + x;
      pass[at] *= 1 - 0.3 * cover;
      haze[at] += 44 * cover;
    }
  }
}

/** Oil is amber. */
const oilTint = [1.35, 1.05, 0.6] as const;

/** Lamp and lens: multiplies `light` in place by gain, cast, fall-off and dirt, and adds the haze, lit as well. */
export function applyLight(light: Float32Array, draw: CameraDraw, dirt: LensDirt, size: number): void {
  const cos = Math.cos(draw.lightRad);
  const sin = Math.sin(draw.lightRad);
  const [red, green, blue] = draw.cast;
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const towardsLamp = ((x / (size - 1) - 0.5) * cos + (y / (size - 1) - 0.5) * sin) / 1.4142 + 0.5;
      const level = draw.gain * (1 - draw.gradient * (1 - towardsLamp));
      const at = y * size + x;
      const pass = level * dirt.pass[at];
      // Oil scatters the lamp's light into the lens: less of it when the lamp is dim.
      const haze = dirt.haze[at] * level;
      light[at * 3] = (light[at * 3] * pass + haze * oilTint[0]) * red;
      light[at * 3 + 1] = (light[at * 3 + 1] * pass + haze * oilTint[1]) * green;
      light[at * 3 + 2] = (light[at * 3 + 2] * pass + haze * oilTint[2]) * blue;
    }
  }
}

/** Separable Gaussian with 5 taps (sigma up to about 1.2 px) or 11 taps above; edges repeat. `scratch` has the size of `light`. */
export function blur(light: Float32Array, scratch: Float32Array, sigmaPx: number, size: number): void {
  if (sigmaPx < 0.2) return;
  const radius = sigmaPx <= 1.2 ? 2 : 5;
  const taps = gaussianTaps(sigmaPx, radius);
  blurAxis(light, scratch, taps, size, 3, size * 3);
  blurAxis(scratch, light, taps, size, size * 3, 3);
}

function gaussianTaps(sigmaPx: number, radius: number): Float64Array {
  const taps = new Float64Array(radius + 1);
  let sum = 0;
  for (let i = 0; i <= radius; i++) {
    taps[i] = Math.exp((-i * i) / (2 * sigmaPx * sigmaPx));
    sum += i === 0 ? taps[i] : 2 * taps[i];
  }
  return taps.map((tap) => tap / sum);
}

function blurAxis(
  from: Float32Array,
  to: Float32Array,
  taps: Float64Array,
  size: number,
  step: number,
  lineStep: number,
): void {
  const radius = taps.length - 1;
  const last = size - 1;
  for (let line = 0; line < size; line++) {
    for (let i = 0; i < size; i++) {
      const centre = line * lineStep + i * step;
      for (let channel = 0; channel < 3; channel++) {
        const at = centre + channel;
        let sum = from[at] * taps[0];
        for (let k = 1; k <= radius; k++) {
          const before = i - k < 0 ? at - i * step : at - k * step;
          const after = i + k > last ? at + (last - i) * step : at + k * step;
          sum += (from[before] + from[after]) * taps[k];
        }
        to[at] = sum;
      }
    }
  }
}

/** Sensor: shot noise grows with the square root of the light, then 8 bits. */
export function readSensor(light: Float32Array, noise: number, random: Random): Uint8Array {
  const pixels = new Uint8Array(light.length);
  for (let i = 0; i < light.length; i++) {
    const level = Math.max(0, light[i]);
    const deviation = noise * (0.4 + 0.6 * Math.sqrt(level / 128));
    const value = level + deviation * random.normal() + 0.5;
    pixels[i] = value <= 0 ? 0 : value >= 255 ? 255 : value;
  }
  return pixels;
}
