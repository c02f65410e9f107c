import type { Tensor } from "../../backend.js";
import type { DetectionHead } from "../detection.js";

/** A box in 0..1 of the model's input, as centre and size. */
export interface Truth {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly label: number;
  readonly score: number;
}

export const WIDTH = 320;
export const HEIGHT = 192;
export const LABELS = ["a", "b", "c", "d"];
const COUNT = LABELS.length;
const logit = (p: number): number => Math.log(p / (1 - p));

export interface Encoded {
  readonly head: DetectionHead;
  readonly outputs: Record<string, Tensor>;
}

export function detectionHead(more: Partial<DetectionHead>): DetectionHead {
  return {
    kind: "detection",
    name: "objects",
    format: "yolov8",
    boxes: "boxes",
    labels: LABELS,
    scoreThreshold: 0.3,
    iouThreshold: 0.5,
    suppression: "class",
    strides: [8, 16, 32],
    detectionsMax: 100,
    ...more,
  };
}

export function float(dims: number[], fill = 0): Tensor & { data: Float32Array } {
  const length = dims.reduce((product, size) => product * size, 1);
  return { type: "float32", dims, data: new Float32Array(length).fill(fill) };
}

/** Writers of what a detector of each family would say about given boxes: each box in a row of its own, spread over the rows. */
export const ENCODERS: Record<string, (truths: readonly Truth[]) => Encoded> = {
  ultraface: (truths) => {
    const rows = 400;
    const scores = float([1, rows, 1 + COUNT], 0.001);
    const boxes = float([1, rows, 4]);
    truths.forEach((truth, index) => {
      const row = index * 7 + 3;
      scores.data[row * (1 + COUNT) + 1 + truth.label] = truth.score;
      boxes.data.set(cornersOf(truth), row * 4);
    });
    return { head: detectionHead({ format: "ultraface", scores: "scores" }), outputs: { scores, boxes } };
  },

  "ssd softmax": (truths) => encodeSsd(truths, "softmax"),
  "ssd sigmoid": (truths) => encodeSsd(truths, "sigmoid"),

  fastestdet: (truths) => {
    const [rows, columns] = [HEIGHT / 16, WIDTH / 16];
    const boxes = float([1, 5 + COUNT, rows, columns], 0.0001);
    for (const truth of truths) {
      const [row, column] = [Math.floor(truth.y * rows), Math.floor(truth.x * columns)];
      const put = (channel: number, value: number) => {
        boxes.data[(channel * rows + row) * columns + column] = value;
      };
      put(0, truth.score);
      put(1, Math.atanh(truth.x * columns - column));
      put(2, Math.atanh(truth.y * rows - row));
      put(3, logit(truth.width));
      put(4, logit(truth.height));
      put(5 + truth.label, truth.score);
    }
    return { head: detectionHead({ format: "fastestdet" }), outputs: { boxes } };
  },

  yolov5: (truths) => {
    const boxes = float([1, 500, 5 + COUNT]);
    truths.forEach((truth, index) => {
      const at = (index * 11 + 5) * (5 + COUNT);
      boxes.data.set(pixelsOf(truth), at);
      boxes.data[at + 4] = 0.98;
      boxes.data[at + 5 + truth.label] = truth.score / 0.98;
    });
    return { head: detectionHead({ format: "yolov5" }), outputs: { boxes } };
  },

  yolox: (truths) => {
    const strides = [8, 16, 32];
    const counts = strides.map((stride) => (WIDTH / stride) * (HEIGHT / stride));
    const boxes = float([1, counts.reduce((sum, count) => sum + count, 0), 5 + COUNT]);
    truths.forEach((truth, index) => {
      const level = index % 3;
      const stride = strides[level]!;
      const [x, y, width, height] = pixelsOf(truth);
      const [column, row] = [Math.floor(x / stride), Math.floor(y / stride)];
      const before = counts.slice(0, level).reduce((sum, count) => sum + count, 0);
      const at = (before + row * (WIDTH / stride) + column) * (5 + COUNT);
      boxes.data.set(
        [x / stride - column, y / stride - row, Math.log(width / stride), Math.log(height / stride), 0.99],
        at,
      );
      boxes.data[at + 5 + truth.label] = truth.score / 0.99;
    });
    return { head: detectionHead({ format: "yolox" }), outputs: { boxes } };
  },

  yolov8: (truths) => encodeYolov8(truths, true),
  "yolov8 by rows": (truths) => encodeYolov8(truths, false),

  "listed, y first": (truths) => {
    const [boxes, scores, classes] = [float([1, 20, 4]), float([1, 20]), float([1, 20])];
    truths.forEach((truth, index) => {
      const [x0, y0, x1, y1] = cornersOf(truth);
      boxes.data.set([y0, x0, y1, x1], index * 4);
      scores.data[index] = truth.score;
      classes.data[index] = truth.label + 1;
    });
    const head = detectionHead({
      ...{ format: "listed", scores: "scores", classes: "classes", suppression: "none" },
      ...{ corners: "yxyx", units: "unit", firstClass: 1 },
    });
    return { head, outputs: { boxes, scores, classes } };
  },

  "listed, in pixels": (truths) => {
    const count = 20;
    const boxes = float([count, 4]);
    const scores = float([count]);
    const labels: Tensor = { type: "int64", dims: [count], data: new BigInt64Array(count) };
    truths.forEach((truth, index) => {
      const [x0, y0, x1, y1] = cornersOf(truth);
      boxes.data.set([x0 * WIDTH, y0 * HEIGHT, x1 * WIDTH, y1 * HEIGHT], index * 4);
      scores.data[index] = truth.score;
      (labels.data as BigInt64Array)[index] = BigInt(truth.label);
    });
    const head = detectionHead({
      ...{ format: "listed", scores: "scores", classes: "labels", suppression: "none" },
    });
    return { head, outputs: { boxes, scores, labels } };
  },

  yolov10: (truths) => {
    const boxes = float([1, 300, 6]);
    truths.forEach((truth, index) => {
      const [x0, y0, x1, y1] = cornersOf(truth);
      boxes.data.set([x0 * WIDTH, y0 * HEIGHT, x1 * WIDTH, y1 * HEIGHT, truth.score, truth.label], index * 6);
    });
    return { head: detectionHead({ format: "yolov10", suppression: "none" }), outputs: { boxes } };
  },

  "rtdetr of two outputs": (truths) => {
    const boxes = float([1, 300, 4]);
    const scores = float([1, 300, COUNT], -9);
    truths.forEach((truth, index) => {
      boxes.data.set([truth.x, truth.y, truth.width, truth.height], index * 4);
      scores.data[index * COUNT + truth.label] = logit(truth.score);
    });
    return {
      head: detectionHead({ format: "rtdetr", scores: "scores", suppression: "none" }),
      outputs: { boxes, scores },
    };
  },

  "rtdetr of one output": (truths) => {
    const boxes = float([1, 300, 4 + COUNT]);
    truths.forEach((truth, index) => {
      const at = index * (4 + COUNT);
      boxes.data.set([truth.x, truth.y, truth.width, truth.height], at);
      boxes.data[at + 4 + truth.label] = truth.score;
    });
    return { head: detectionHead({ format: "rtdetr", suppression: "none" }), outputs: { boxes } };
  },
};

export function cornersOf({ x, y, width, height }: Truth): [number, number, number, number] {
  return [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
}

function pixelsOf({ x, y, width, height }: Truth): [number, number, number, number] {
  return [x * WIDTH, y * HEIGHT, width * WIDTH, height * HEIGHT];
}

/** Prior boxes of two sizes in cells of 16 pixels; each truth is told by the first prior of the cell that its centre lies in. */
function encodeSsd(truths: readonly Truth[], activation: "softmax" | "sigmoid"): Encoded {
  const stride = 16;
  const [rows, columns] = [HEIGHT / stride, WIDTH / stride];
  const background = activation === "softmax" ? 1 : 0;
  const classes = COUNT + background;
  const boxes = float([1, rows * columns * 2, 4]);
  const scores = float([1, rows * columns * 2, classes], -12);
  if (background === 1) for (let at = 0; at < scores.data.length; at += classes) scores.data[at] = 3;
  for (const truth of truths) {
    const [x, y, width, height] = pixelsOf(truth);
    const [column, row] = [Math.floor(x / stride), Math.floor(y / stride)];
    const at = (row * columns + column) * 2;
    const offsets = [
      (x - (column + 0.5) * stride) / 40 / 0.1,
      (y - (row + 0.5) * stride) / 30 / 0.1,
      Math.log(width / 40) / 0.2,
      Math.log(height / 30) / 0.2,
    ];
    boxes.data.set(offsets, at * 4);
    // Softmax against a background of 3 alone, the other classes being next to nothing.
    scores.data[at * classes + background + truth.label] = logit(truth.score) + (background === 1 ? 3 : 0);
  }
  const head = detectionHead({
    format: "ssd",
    scores: "scores",
    values: "logits",
    activation,
    anchors: {
      levels: [
        {
          stride,
          sizes: [
            [40, 30],
            [80, 60],
          ],
        },
      ],
      variances: [0.1, 0.2],
      centres: "stride",
      clip: false,
      decoded: false,
    },
  });
  return { head, outputs: { boxes, scores } };
}

function encodeYolov8(truths: readonly Truth[], byColumns: boolean): Encoded {
  const rows = 700;
  const columns = 4 + COUNT;
  const boxes = float(byColumns ? [1, columns, rows] : [1, rows, columns]);
  truths.forEach((truth, index) => {
    const row = index * 13 + 2;
    const values = [
      ...pixelsOf(truth),
      ...LABELS.map((_, label) => (label === truth.label ? truth.score : 0.01)),
    ];
    values.forEach((value, column) => {
      boxes.data[byColumns ? column * rows + row : row * columns + column] = value;
    });
  });
  return { head: detectionHead({ format: "yolov8" }), outputs: { boxes } };
}
