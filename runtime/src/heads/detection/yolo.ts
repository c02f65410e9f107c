import { FieldloopError } from "@fieldloop/protocol";
import { outputInvalid, tensorOf, type Tensors } from "../values.js";
import { extraColumns, type Decoder, type DetectionHead, type InputSize } from "./decoder.js";
import { extrasOf } from "./extras.js";
import { cell, scanClasses, scanObjects, tableOf, type Table } from "./table.js";

/** YOLOv5 and its like: rows of centre, size, objectness, classes; the score is objectness · probability of the class. */
export function yolov5Decoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  const { points, masks } = extraColumns(head);
  const first = 5 + head.labels.length;
  const table = tableOf(
    head,
    head.boxes,
    tensorOf(head, outputs, head.boxes),
    first + points + masks,
    "rows",
  );
  const { scaleX, scaleY } = pixelScale(head, size);
  return {
    count: table.rows,
    scan: (candidates) => scanObjects(table, 4, head, (objectness, p) => objectness * p, candidates),
    corners: (row, into, at) => centreCorners(table, row, scaleX, scaleY, into, at),
    ...extrasOf(head, table, first, scaleX, scaleY),
  };
}

/** YOLOv8, v9, v11, v12: columns of centre, size, classes without objectness (Ultralytics' export; also transposed). */
export function yolov8Decoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  const { points, masks } = extraColumns(head);
  const first = 4 + head.labels.length;
  const tensor = tensorOf(head, outputs, head.boxes);
  const table = tableOf(head, head.boxes, tensor, first + points + masks, "columns");
  const { scaleX, scaleY } = pixelScale(head, size);
  return {
    count: table.rows,
    scan: (candidates) => scanClasses(table, 4, head, head.values === "logits", candidates),
    corners: (row, into, at) => centreCorners(table, row, scaleX, scaleY, into, at),
    ...extrasOf(head, table, first, scaleX, scaleY),
  };
}

/** YOLOv10 and other detectors that choose for themselves: rows of corners, score, class number (Wang et al. 2024). */
export function yolov10Decoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  const { points, masks } = extraColumns(head);
  const table = tableOf(head, head.boxes, tensorOf(head, outputs, head.boxes), 6 + points + masks, "rows");
  const { scaleX, scaleY } = pixelScale(head, size);
  return {
    count: table.rows,
    scan: (candidates) => {
      for (let row = 0; row < table.rows; row++) {
        const score = cell(table, row, 4);
        candidates.see(score);
        if (score >= candidates.floor)
          candidates.add(Math.min(score, 1), row, classOf(head, cell(table, row, 5)));
      }
    },
    corners: (row, into, at) => {
      into[at] = cell(table, row, 0) * scaleX;
      into[at + 1] = cell(table, row, 1) * scaleY;
      into[at + 2] = cell(table, row, 2) * scaleX;
      into[at + 3] = cell(table, row, 3) * scaleY;
    },
    ...extrasOf(head, table, 6, scaleX, scaleY),
  };
}

function classOf(head: DetectionHead, value: number): number {
  const label = Math.round(value);
  if (label >= 0 && label < head.labels.length) return label;
  throw outputInvalid(
    head,
    `output "${head.boxes}" names class ${value}, there are ${head.labels.length} labels`,
  );
}

/** From the pixels of the model's input to 0..1 of it. */
export function pixelScale(head: DetectionHead, size: InputSize): { scaleX: number; scaleY: number } {
  if (head.units === "unit") return { scaleX: 1, scaleY: 1 };
  requireSize(head, size);
  return { scaleX: 1 / size.width, scaleY: 1 / size.height };
}

/** To 0..1 of the model's input for formats that have it so already, unless the head says pixels. */
export function unitScale(head: DetectionHead, size: InputSize): { scaleX: number; scaleY: number } {
  return head.units === "pixel" ? pixelScale(head, size) : { scaleX: 1, scaleY: 1 };
}

/** @throws FieldloopError `manifest_invalid` where nothing says how large the model's input is */
export function requireSize(head: DetectionHead, size: InputSize): void {
  if (size.width > 0 && size.height > 0) return;
  throw new FieldloopError(
    "manifest_invalid",
    `Read head "${head.name}": format "${head.format}" counts in pixels, wanted an input that is an image`,
  );
}

/** Corners from centre and size in columns 0..3. */
export function centreCorners(
  table: Table,
  row: number,
  scaleX: number,
  scaleY: number,
  into: Float32Array,
  at: number,
): void {
  const x = cell(table, row, 0) * scaleX;
  const y = cell(table, row, 1) * scaleY;
  const halfWidth = (cell(table, row, 2) * scaleX) / 2;
  const halfHeight = (cell(table, row, 3) * scaleY) / 2;
  into[at] = x - halfWidth;
  into[at + 1] = y - halfHeight;
  into[at + 2] = x + halfWidth;
  into[at + 3] = y + halfHeight;
}
