/**
 * What the camera lives in: light, optics, dirt. A condition is data, so that a test or a demo may bring its own;
 * the named ones are those that the shipped model is measured on.
 */

/** An interval [min, max] from which every frame draws its own value. */
export type Interval = readonly [min: number, max: number];

export interface CameraCondition {
  readonly name: string;
  /** Exposure: factor on linear light; 1 is what the training data are centred on. */
  readonly gain: Interval;
  /** Factor per colour channel (white balance, lamp colour). */
  readonly cast: readonly [red: Interval, green: Interval, blue: Interval];
  /** Fall-off of the light across the frame, 0..1: 0.5 leaves half the light on the far side. */
  readonly gradient: Interval;
  /** Where the light comes from: fixed per device, or drawn for every frame. */
  readonly lightFrom: "device" | "frame";
  /** Gaussian blur of the optics, sigma in pixels. */
  readonly blurSigmaPx: Interval;
  /** Standard deviation of the sensor noise at mid grey, in 8-bit steps. */
  readonly noise: Interval;
  /** Small dark specks on the lens, a fixed set per device. */
  readonly specks: number;
  /** Strength of a smear of oil at a fixed place per device, 0 (none) to 1. */
  readonly oil: number;
}

export const normalCondition: CameraCondition = {
  name: "normal",
  gain: [0.82, 1.18],
  cast: [
    [0.95, 1.05],
    [0.97, 1.03],
    [0.94, 1.06],
  ],
  gradient: [0, 0.25],
  lightFrom: "frame",
  blurSigmaPx: [0.35, 1.05],
  noise: [1.5, 5.5],
  specks: 4,
  oil: 0,
};

/** The lamp ages and is dimmer, warmer and to one side; oil got onto the lens. */
export const degradedCondition: CameraCondition = {
  name: "degraded",
  gain: [0.52, 0.92],
  cast: [
    [1.05, 1.2],
    [0.88, 0.96],
    [0.6, 0.76],
  ],
  gradient: [0.2, 0.4],
  lightFrom: "device",
  blurSigmaPx: [0.4, 0.9],
  noise: [1.5, 3.5],
  specks: 5,
  oil: 0.5,
};

const none: Interval = [1, 1];

/** Only the light of {@link degradedCondition}: dimmer, warm, from the side. */
export const dimCondition: CameraCondition = { ...degradedCondition, name: "dim", specks: 4, oil: 0 };

/** Only the dirt of {@link degradedCondition}. */
export const dirtyCondition: CameraCondition = {
  ...normalCondition,
  name: "dirty",
  specks: degradedCondition.specks,
  oil: degradedCondition.oil,
};

/** A camera that lost its focus. */
export const blurredCondition: CameraCondition = {
  ...normalCondition,
  name: "blurred",
  blurSigmaPx: [1.6, 2.6],
};

/** No variation and no defect at all: for looking at the scene itself. */
export const idealCondition: CameraCondition = {
  name: "ideal",
  gain: none,
  cast: [none, none, none],
  gradient: [0, 0],
  lightFrom: "device",
  blurSigmaPx: [0, 0],
  noise: [0, 0],
  specks: 0,
  oil: 0,
};

/** The named conditions, for command lines and settings. */
export const cameraConditions = {
  normal: normalCondition,
  degraded: degradedCondition,
  dim: dimCondition,
  dirty: dirtyCondition,
  blurred: blurredCondition,
  ideal: idealCondition,
} as const;

export type CameraConditionName = keyof typeof cameraConditions;

/** True for the name of a condition in {@link cameraConditions}. */
export function isCameraConditionName(name: string): name is CameraConditionName {
  return Object.hasOwn(cameraConditions, name);
}
