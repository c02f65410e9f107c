import { encodeModel } from "../onnx/model.js";
import { GraphBuilder } from "../onnx/builder.js";
import { float32Tensor } from "../onnx/tensor.js";
import { Random } from "../simulate/random.js";

/** Zero weights of a shape, for `initializeWeights` to fill. */
function zeros(builder: GraphBuilder, name: string, dims: readonly number[]): string {
  const size = dims.reduce((product, dim) => product * dim, 1);
  return builder.initializer(float32Tensor(name, dims, new Float32Array(size)));
}

export const TOY_SIDE = 12;
export const TOY_CLASSES = 4;

/** Conv-Relu-MaxPool twice, GlobalAveragePool (the embedding), Gemm; outputs logits and embedding. */
export function toyClassifier(): Uint8Array {
  const builder = new GraphBuilder();
  let at = builder.input("image", "float32", ["batch", 3, TOY_SIDE, TOY_SIDE]);
  for (const [name, inputs, outputs] of [
    ["conv1", 3, 8],
    ["conv2", 8, 16],
  ] as const) {
    const weight = zeros(builder, `${name}.weight`, [outputs, inputs, 3, 3]);
    const bias = zeros(builder, `${name}.bias`, [outputs]);
    const [convolved = ""] = builder.node("Conv", [at, weight, bias], {
      kernel_shape: { ints: [3, 3] },
      pads: { ints: [1, 1, 1, 1] },
    });
    const [active = ""] = builder.node("Relu", [convolved]);
    [at = ""] = builder.node("MaxPool", [active], {
      kernel_shape: { ints: [2, 2] },
      strides: { ints: [2, 2] },
    });
  }
  const [pooled = ""] = builder.node("GlobalAveragePool", [at]);
  const [embedding = ""] = builder.node("Flatten", [pooled], { axis: { i: 1 } }, ["embedding"]);
  const weight = zeros(builder, "head.weight", [TOY_CLASSES, 16]);
  const bias = zeros(builder, "head.bias", [TOY_CLASSES]);
  builder.node("Gemm", [embedding, weight, bias], { transB: { i: 1 } }, ["logits"]);
  builder.output("logits", "float32", ["batch", TOY_CLASSES]);
  builder.output("embedding", "float32", ["batch", 16]);
  return encodeModel(builder.build({ opset: 17 }));
}

export interface ToyRows {
  readonly inputs: Float32Array;
  readonly labels: Int32Array;
}

/** Stripes in one of four directions, with random phase, colour and noise. */
export function toyImages(count: number, seed: number): ToyRows {
  const plane = TOY_SIDE * TOY_SIDE;
  const inputs = new Float32Array(count * 3 * plane);
  const labels = new Int32Array(count);
  const directions = [
    [1, 0],
    [0, 1],
    [1, 1],
    [1, -1],
  ] as const;
  for (let row = 0; row < count; row++) {
    const random = new Random(seed, row);
    labels[row] = random.int(TOY_CLASSES);
    const [dx, dy] = directions[labels[row]!]!;
    const phase = random.range(0, 2 * Math.PI);
    const colour = [random.range(0.3, 1), random.range(0.3, 1), random.range(0.3, 1)];
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < TOY_SIDE; y++) {
        for (let x = 0; x < TOY_SIDE; x++) {
          const wave = Math.sin(phase + 1.4 * (dx * x + dy * y));
          const at = (row * 3 + channel) * plane + y * TOY_SIDE + x;
          inputs[at] = colour[channel]! * wave + 0.4 * random.normal();
        }
      }
    }
  }
  return { inputs, labels };
}

export const TOY_WINDOW = 32;

/** Dense autoencoder 32-16-4-16-32 with an embedding output. */
export function toyAutoencoder(): Uint8Array {
  const builder = new GraphBuilder();
  let at = builder.input("window", "float32", ["batch", TOY_WINDOW]);
  const sizes = [TOY_WINDOW, 16, 4, 16, TOY_WINDOW];
  for (let layer = 1; layer < sizes.length; layer++) {
    const weight = zeros(builder, `dense${layer}.weight`, [sizes[layer - 1]!, sizes[layer]!]);
    const bias = zeros(builder, `dense${layer}.bias`, [sizes[layer]!]);
    const last = layer === sizes.length - 1;
    [at = ""] = builder.node("MatMul", [at, weight]);
    [at = ""] = builder.node("Add", [at, bias], {}, last ? ["reconstruction"] : 1);
    if (layer === 2) builder.output(at, "float32", ["batch", sizes[layer]!]);
    else if (!last) [at = ""] = builder.node("Relu", [at]);
  }
  builder.output("reconstruction", "float32", ["batch", TOY_WINDOW]);
  return encodeModel(builder.build({ opset: 17 }));
}

/** Two sines with random phases. */
export function toyWindows(count: number, seed: number): Float32Array {
  const inputs = new Float32Array(count * TOY_WINDOW);
  for (let row = 0; row < count; row++) {
    const random = new Random(seed, row);
    const [a, b] = [random.range(0, 2 * Math.PI), random.range(0, 2 * Math.PI)];
    for (let t = 0; t < TOY_WINDOW; t++) {
      inputs[row * TOY_WINDOW + t] =
        Math.sin(a + 0.4 * t) + 0.5 * Math.sin(b + 0.9 * t) + 0.02 * random.normal();
    }
  }
  return inputs;
}
