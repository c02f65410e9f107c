import { named, outputInvalid, sigmoidOf, tensorOf, type Tensors } from "../values.js";
import type { Decoder, DetectionHead } from "./decoder.js";
import { cell, scanObjects, tableOf } from "./table.js";

/**
 * FastestDet (github.com/dog-qiuqiu/FastestDet): one grid over the whole input. Objectness and classes are probabilities, centre =
 * (cell + tanh) / grid, size = sigmoid of the whole input. The score is the weighted geometric mean objectness^0.6 · class^0.4 of its
 * deployed examples.
 */
export function fastestdetDecoder(head: DetectionHead, outputs: Tensors): Decoder {
  const tensor = tensorOf(head, outputs, head.boxes);
  const columns = tensor.dims.at(-1) ?? 0;
  const rows = tensor.dims.at(-2) ?? 0;
  if (tensor.dims.length !== 4) {
    throw outputInvalid(
      head,
      `output ${named(head.boxes, tensor)}, wanted [1, ${5 + head.labels.length}, rows, columns]`,
    );
  }
  const table = tableOf(head, head.boxes, tensor, 5 + head.labels.length, "columns");
  return {
    count: table.rows,
    scan: (candidates) =>
      scanObjects(table, 0, head, (objectness, p) => objectness ** 0.6 * p ** 0.4, candidates),
    corners: (row, into, at) => {
      const x = ((row % columns) + Math.tanh(cell(table, row, 1))) / columns;
      const y = (Math.floor(row / columns) + Math.tanh(cell(table, row, 2))) / rows;
      const halfWidth = sigmoidOf(cell(table, row, 3)) / 2;
      const halfHeight = sigmoidOf(cell(table, row, 4)) / 2;
      into[at] = x - halfWidth;
      into[at + 1] = y - halfHeight;
      into[at + 2] = x + halfWidth;
      into[at + 3] = y + halfHeight;
    },
  };
}
