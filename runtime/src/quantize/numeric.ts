/** 8-bit integer types of the quantized form. */
export type QuantizedType = "uint8" | "int8";

/** real = scale * (quantized - zeroPoint) (ONNX QuantizeLinear). `scale` is a float32 value. */
export interface AffineParameters {
  readonly scale: number;
  readonly zeroPoint: number;
}

/** Smallest normal float32: below it a scale loses bits, so such a tensor counts as constant zero. */
const SCALE_MIN = 2 ** -126;

/** Rounds to the nearest integer, ties to even, as QuantizeLinear demands; `Math.round` takes ties up. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest < 0.5) return floor;
  if (rest > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Inclusive range of a quantized type. */
export function quantizedRange(type: QuantizedType): { readonly min: number; readonly max: number } {
  return type === "uint8" ? { min: 0, max: 255 } : { min: -128, max: 127 };
}

/**
 * Scale and zero point for values between `realMin` and `realMax` (ONNX Runtime `quant_utils.py`, compute_scale_zp).
 * The range is widened to contain 0, so that zero, and with it padding and Relu, is exact. The symmetric form has its
 * zero point in the middle whatever the range. A range narrower than `minimumRealRange` is widened to it at the top.
 */
export function affineParameters(
  realMin: number,
  realMax: number,
  type: QuantizedType,
  symmetric: boolean,
  minimumRealRange = 0,
): AffineParameters {
  const range = quantizedRange(type);
  const low = Math.min(realMin, 0);
  const high = Math.max(realMax, 0, low + minimumRealRange);
  if (symmetric) {
    const scale = Math.fround(Math.max(-low, high) / 127);
    const zeroPoint = type === "uint8" ? 128 : 0;
    return scale < SCALE_MIN ? { scale: 1, zeroPoint } : { scale, zeroPoint };
  }
  const scale = Math.fround((high - low) / (range.max - range.min));
  if (scale < SCALE_MIN) return { scale: 1, zeroPoint: range.min };
  const zeroPoint = roundHalfEven(range.min - low / scale);
  return { scale, zeroPoint: Math.min(range.max, Math.max(range.min, zeroPoint)) };
}

/** Quantizes one value the way ONNX Runtime does: float32 division, ties to even, then clipping. */
export function quantizeValue(
  value: number,
  parameters: AffineParameters,
  range: { readonly min: number; readonly max: number },
): number {
  const level = roundHalfEven(Math.fround(value / parameters.scale)) + parameters.zeroPoint;
  return Math.min(range.max, Math.max(range.min, level));
}
