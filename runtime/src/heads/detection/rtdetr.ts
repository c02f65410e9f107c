import { tensorOf, outputInvalid, type Tensors } from "../values.js";
import { extraColumns, type Decoder, type DetectionHead, type InputSize } from "./decoder.js";
import { extrasOf } from "./extras.js";
import { scanClasses, tableOf } from "./table.js";
import { centreCorners, unitScale } from "./yolo.js";

/**
 * RT-DETR (Zhao et al. 2023): queries with centre and size in 0..1, and their classes in an output of their own (logits) or behind the box in
 * the same one (probabilities).
 */
export function rtdetrDecoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  const { points, masks } = extraColumns(head);
  const { scaleX, scaleY } = unitScale(head, size);
  const classes = head.labels.length;
  const boxesTensor = tensorOf(head, outputs, head.boxes);
  if (head.scores === undefined || head.scores === head.boxes) {
    const table = tableOf(head, head.boxes, boxesTensor, 4 + classes + points + masks, "rows");
    return {
      count: table.rows,
      scan: (candidates) => scanClasses(table, 4, head, head.values === "logits", candidates),
      corners: (row, into, at) => centreCorners(table, row, scaleX, scaleY, into, at),
      ...extrasOf(head, table, 4 + classes, scaleX, scaleY),
    };
  }
  const boxes = tableOf(head, head.boxes, boxesTensor, 4, "rows");
  const scores = tableOf(head, head.scores, tensorOf(head, outputs, head.scores), classes, "rows");
  if (boxes.rows !== scores.rows) {
    throw outputInvalid(
      head,
      `output "${head.boxes}" has ${boxes.rows} boxes, "${head.scores}" scores of ${scores.rows}`,
    );
  }
  return {
    count: boxes.rows,
    scan: (candidates) => scanClasses(scores, 0, head, head.values !== "probabilities", candidates),
    corners: (row, into, at) => centreCorners(boxes, row, scaleX, scaleY, into, at),
  };
}
