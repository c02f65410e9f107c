import { FieldloopError } from "@fieldloop/protocol";
import { named, outputInvalid, realValues, tensorOf, type Tensors } from "../values.js";
import type { Decoder, DetectionHead, InputSize } from "./decoder.js";
import { pixelScale } from "./yolo.js";

/**
 * Detectors that end with their own suppression: corners, scores and class numbers in outputs of their own (torchvision, TensorFlow's
 * object detection, RT-DETR as its authors export it, TensorRT's EfficientNMS). Rows that only fill the list score 0.
 */
export function listedDecoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  const { scores: scoresName, classes: classesName, firstClass = 0 } = head;
  if (scoresName === undefined || classesName === undefined) {
    throw new FieldloopError(
      "manifest_invalid",
      `Read head "${head.name}": format "listed" wants outputs with scores and classes`,
    );
  }
  const [boxesTensor, scoresTensor, classesTensor] = [head.boxes, scoresName, classesName].map((name) =>
    tensorOf(head, outputs, name),
  ) as [Tensors[string], Tensors[string], Tensors[string]];
  const boxes = realValues(boxesTensor, head.quantization);
  const scores = realValues(scoresTensor);
  const classes = realValues(classesTensor);
  const count = scores.length;
  if (boxes.length !== count * 4 || classes.length !== count) {
    throw outputInvalid(
      head,
      `outputs ${named(head.boxes, boxesTensor)}, ${named(scoresName, scoresTensor)} and ${named(classesName, classesTensor)}, wanted [1, N, 4], [1, N] and [1, N]`,
    );
  }
  const { scaleX, scaleY } = pixelScale(head, size);
  const [x, y] = head.corners === "yxyx" ? [1, 0] : [0, 1];
  const labelOf = (row: number): number => {
    const label = Math.round(classes[row]!) - firstClass;
    if (label >= 0 && label < head.labels.length) return label;
    throw outputInvalid(
      head,
      `output "${classesName}" names class ${classes[row]!}, the ${head.labels.length} labels are ${firstClass} to ${firstClass + head.labels.length - 1}`,
    );
  };
  return {
    count,
    scan: (candidates) => {
      for (let row = 0; row < count; row++) {
        const score = scores[row]!;
        candidates.see(score);
        if (score > 0 && score >= candidates.floor) candidates.add(Math.min(score, 1), row, labelOf(row));
      }
    },
    corners: (row, into, at) => {
      into[at] = boxes[row * 4 + x]! * scaleX;
      into[at + 1] = boxes[row * 4 + y]! * scaleY;
      into[at + 2] = boxes[row * 4 + 2 + x]! * scaleX;
      into[at + 3] = boxes[row * 4 + 2 + y]! * scaleY;
    },
  };
}
