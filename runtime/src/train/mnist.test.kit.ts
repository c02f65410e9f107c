import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { Random } from "../simulate/random.js";

/** Folder with public models and data sets; tests that need it are skipped where it is absent. */
export const DATA_FOLDER = process.env["FIELDLOOP_TEST_DATA"] ?? "";

export const MNIST_MODEL = `${DATA_FOLDER}/models/mnist-8/mnist.onnx`;
const IMAGES = `${DATA_FOLDER}/sets/mnist5k/images-idx3-ubyte.gz`;
const LABELS = `${DATA_FOLDER}/sets/mnist5k/labels-idx1-ubyte.gz`;

export const hasMnist = DATA_FOLDER !== "" && [MNIST_MODEL, IMAGES, LABELS].every((path) => existsSync(path));
export const SIDE = 28;
const PLANE = SIDE * SIDE;

export interface Digits {
  /** [count, 28 * 28], 0..1. */
  readonly inputs: Float32Array;
  readonly labels: Int32Array;
}

/** The 5,000 digits (idx files: big-endian header, then bytes). */
export function readDigits(): Digits {
  const images = gunzipSync(readFileSync(IMAGES)).subarray(16);
  const labels = gunzipSync(readFileSync(LABELS)).subarray(8);
  return { inputs: Float32Array.from(images, (byte) => byte / 255), labels: Int32Array.from(labels) };
}

export function sliceDigits({ inputs, labels }: Digits, from: number, to: number): Digits {
  return { inputs: inputs.slice(from * PLANE, to * PLANE), labels: labels.slice(from, to) };
}

export function scaleDigits({ inputs, labels }: Digits, factor: number): Digits {
  return { inputs: inputs.map((value) => value * factor), labels };
}

/** A hard shift of the field: turned by 40 degrees, a third of the light, noise. */
export function shiftDigits({ inputs, labels }: Digits, seed: number): Digits {
  const shifted = new Float32Array(inputs.length);
  const angle = (40 * Math.PI) / 180;
  const centre = (SIDE - 1) / 2;
  for (let row = 0; row < labels.length; row++) {
    const random = new Random(seed, row);
    const image = inputs.subarray(row * PLANE, (row + 1) * PLANE);
    for (let y = 0; y < SIDE; y++) {
      for (let x = 0; x < SIDE; x++) {
        const [dx, dy] = [x - centre, y - centre];
        const fromX = centre + Math.cos(angle) * dx + Math.sin(angle) * dy;
        const fromY = centre - Math.sin(angle) * dx + Math.cos(angle) * dy;
        const value = 0.35 * bilinear(image, fromX, fromY) + 0.15 * random.normal();
        shifted[row * PLANE + y * SIDE + x] = Math.min(1, Math.max(0, value));
      }
    }
  }
  return { inputs: shifted, labels };
}

function bilinear(image: Float32Array, x: number, y: number): number {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const at = (column: number, row: number) =>
    column < 0 || row < 0 || column >= SIDE || row >= SIDE ? 0 : image[row * SIDE + column]!;
  const [u, v] = [x - left, y - top];
  const above = (1 - u) * at(left, top) + u * at(left + 1, top);
  const below = (1 - u) * at(left, top + 1) + u * at(left + 1, top + 1);
  return (1 - v) * above + v * below;
}
