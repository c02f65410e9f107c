/** The sliding window of Conv, ConvTranspose and the pools, per spatial axis, with `auto_pad` resolved. */
export interface Window {
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly padBegin: readonly number[];
  readonly padEnd: readonly number[];
}

/** Attributes of a node as they are written; what is not written has the operator's default. */
export interface WindowAttributes {
  readonly strides: readonly number[] | undefined;
  readonly dilations: readonly number[] | undefined;
  readonly pads: readonly number[] | undefined;
  readonly autoPad: string;
}

/** The window over an input whose shape without batch and channels is `spatial` (ONNX operators, Conv). */
export function resolveWindow(
  { strides, dilations, pads, autoPad }: WindowAttributes,
  spatial: readonly number[],
  kernel: readonly number[],
): Window {
  const ones = spatial.map(() => 1);
  const stride = strides ?? ones;
  const dilation = dilations ?? ones;
  const rank = spatial.length;
  if (autoPad === "SAME_UPPER" || autoPad === "SAME_LOWER") {
    const total = spatial.map((size, axis) => {
      const count = Math.ceil(size / stride[axis]!);
      return Math.max(0, (count - 1) * stride[axis]! + dilation[axis]! * (kernel[axis]! - 1) + 1 - size);
    });
    const small = total.map((pad) => Math.floor(pad / 2));
    const large = total.map((pad, axis) => pad - small[axis]!);
    const upper = autoPad === "SAME_UPPER";
    return { kernel, stride, dilation, padBegin: upper ? small : large, padEnd: upper ? large : small };
  }
  const zeros = spatial.map(() => 0);
  const written = autoPad === "VALID" ? undefined : pads;
  return {
    kernel,
    stride,
    dilation,
    padBegin: written?.slice(0, rank) ?? zeros,
    padEnd: written?.slice(rank) ?? zeros,
  };
}
