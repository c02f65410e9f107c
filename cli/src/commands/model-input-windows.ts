import { FieldloopError, type WindowInput } from "@fieldloop/protocol";
import { asFloat32, type Tensor } from "@fieldloop/runtime";

/**
 * Windows of an array, as sources give them: the channels of a sample together. The last dimensions are those of one window: [time, channels],
 * [channels, time], or all its values in one; what comes before them counts windows. Where time and channels are of one size, the layout of
 * the input decides.
 * @throws FieldloopError `window_invalid` where the array has another shape
 */
export function windowsOf(path: string, tensor: Tensor, input: WindowInput): Float32Array[] {
  const { length, channels } = input;
  const size = length * channels;
  const values = asFloat32(tensor);
  const [first, second] = tensor.dims.slice(-2);
  const byTime = first === length && second === channels;
  const byChannel = first === channels && second === length && (!byTime || input.layout === "channel-time");
  const flat = tensor.dims.at(-1) === size;
  if (values.length === 0 || !(byTime || byChannel || flat)) {
    throw new FieldloopError(
      "window_invalid",
      `Read "${path}": an array of [${tensor.dims.join(", ")}], a window is [${length}, ${channels}], [${channels}, ${length}] or [${size}], with the number of windows before it`,
    );
  }
  return Array.from({ length: values.length / size }, (_, at) => {
    const window = values.slice(at * size, (at + 1) * size);
    return byChannel && !flat ? interleaved(window, channels) : window;
  });
}

function interleaved(window: Float32Array, channels: number): Float32Array {
  const turned = new Float32Array(window.length);
  const length = window.length / channels;
  window.forEach((value, at) => {
    turned[(at % length) * channels + Math.floor(at / length)] = value;
  });
  return turned;
}
