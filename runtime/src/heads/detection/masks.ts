import type { Box } from "@fieldloop/protocol";
import type { Geometry } from "../../input/frame.js";
import type { Mask } from "../result.js";
import { named, outputInvalid, realValues, tensorOf, type Tensors } from "../values.js";
import type { Decoder, DetectionHead } from "./decoder.js";

/** Cells of a prototype; usual are 160 × 160. Each box may have a mask of as many. */
const PROTOTYPE_CELLS_MAX = 1 << 20;

/** Prototypes as planes, row by row. */
export interface Prototypes {
  readonly data: Float32Array;
  readonly count: number;
  readonly width: number;
  readonly height: number;
}

/** @throws FieldloopError `model_output_invalid` where the prototypes have another shape than the head says */
export function prototypesOf(head: DetectionHead, outputs: Tensors): Prototypes | undefined {
  if (head.masks === undefined) return undefined;
  const { prototypes, count } = head.masks;
  const tensor = tensorOf(head, outputs, prototypes);
  const [batch = 0, planes = 0, height = 0, width = 0] = tensor.dims;
  const cells = height * width;
  const fits = batch === 1 && planes === count && cells > 0 && cells <= PROTOTYPE_CELLS_MAX;
  if (tensor.dims.length !== 4 || !fits) {
    throw outputInvalid(
      head,
      `output ${named(prototypes, tensor)}, wanted [1, ${count}, rows, columns] of at most ${PROTOTYPE_CELLS_MAX} cells`,
    );
  }
  return { data: realValues(tensor, head.quantization), count, width, height };
}

/**
 * The mask of one box, over the cells of the prototypes that the box covers: 1 where the sum of prototypes, weighted by the box's coefficients,
 * is positive, that is where its sigmoid is above one half (Bolya et al. 2019, section 3).
 */
export function maskOf(
  prototypes: Prototypes,
  decoder: Decoder,
  row: number,
  box: Box,
  geometry: Geometry,
): Mask {
  const { data, count, width, height } = prototypes;
  const [left, right] = cellsOf(box.x0, box.x1, geometry.scaleX, geometry.offsetX, width);
  const [top, bottom] = cellsOf(box.y0, box.y1, geometry.scaleY, geometry.offsetY, height);
  const columns = right - left;
  const rows = bottom - top;
  const sums = new Float32Array(columns * rows);
  for (let plane = 0; plane < count; plane++) {
    const weight = decoder.coefficient!(row, plane);
    for (let y = 0; y < rows; y++) {
      const from = (plane * height + top + y) * width + left;
      for (let x = 0; x < columns; x++) sums[y * columns + x]! += weight * data[from + x]!;
    }
  }
  const classes = new Uint8Array(sums.length);
  for (let at = 0; at < sums.length; at++) classes[at] = sums[at]! > 0 ? 1 : 0;
  return { width: columns, height: rows, classes };
}

/** First cell and the one behind the last, at least one cell, of an interval of the source image. */
function cellsOf(low: number, high: number, scale: number, offset: number, count: number): [number, number] {
  const toCell = (value: number): number => ((value - offset) / scale) * count;
  const first = Math.min(Math.max(Math.floor(toCell(low)), 0), count - 1);
  const last = Math.min(Math.max(Math.ceil(toCell(high)), first + 1), count);
  return [first, last];
}
