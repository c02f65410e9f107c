import { outputInvalid, tensorOf, type Tensors } from "../values.js";
import { extraColumns, type Decoder, type DetectionHead, type InputSize } from "./decoder.js";
import { extrasOf } from "./extras.js";
import { cell, scanObjects, tableOf } from "./table.js";
import { requireSize } from "./yolo.js";

/**
 * YOLOX without decoding in the graph (Ge et al. 2021): for each stride a grid, row by row; centre = (offset + cell) · stride,
 * size = exp(value) · stride; objectness and classes are probabilities.
 */
export function yoloxDecoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  requireSize(head, size);
  const { points, masks } = extraColumns(head);
  const first = 5 + head.labels.length;
  const table = tableOf(
    head,
    head.boxes,
    tensorOf(head, outputs, head.boxes),
    first + points + masks,
    "rows",
  );
  const grids = gridsOf(head, size);
  const last = grids.at(-1)!;
  const cellCount = last.from + last.columns * last.rows;
  if (cellCount !== table.rows) {
    throw outputInvalid(
      head,
      `output "${head.boxes}" has ${table.rows} boxes, strides ${head.strides.join(", ")} of an input of ${size.width} × ${size.height} make ${cellCount}`,
    );
  }
  return {
    count: table.rows,
    scan: (candidates) => scanObjects(table, 4, head, (objectness, p) => objectness * p, candidates),
    corners: (row, into, at) => {
      const { from, columns, stride } = grids.findLast((grid) => row >= grid.from)!;
      const place = row - from;
      const x = ((cell(table, row, 0) + (place % columns)) * stride) / size.width;
      const y = ((cell(table, row, 1) + Math.floor(place / columns)) * stride) / size.height;
      const halfWidth = (Math.exp(cell(table, row, 2)) * stride) / size.width / 2;
      const halfHeight = (Math.exp(cell(table, row, 3)) * stride) / size.height / 2;
      into[at] = x - halfWidth;
      into[at + 1] = y - halfHeight;
      into[at + 2] = x + halfWidth;
      into[at + 3] = y + halfHeight;
    },
    ...extrasOf(head, table, first, 1 / size.width, 1 / size.height),
  };
}

interface Grid {
  readonly stride: number;
  readonly columns: number;
  readonly rows: number;
  /** Number of its first box. */
  readonly from: number;
}

function gridsOf(head: DetectionHead, size: InputSize): Grid[] {
  let from = 0;
  return head.strides.map((stride) => {
    const columns = Math.floor(size.width / stride);
    const rows = Math.floor(size.height / stride);
    const grid = { stride, columns, rows, from };
    from += columns * rows;
    return grid;
  });
}
