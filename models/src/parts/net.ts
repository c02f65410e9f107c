import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { partClasses, partsFrameSize } from "@fieldloop/runtime/simulate";

/** Values of the embedding output. */
export const embeddingLength = 32;

/** Pre-processing of the input: `(value / 255 - mean) / std` for every channel. */
export const partsNormalization = { mean: 0.35, std: 0.2 } as const;

/** Channels and stride of each 3×3 convolution: 64 → 32 → 16 → 8 → 8 pixels. */
const convolutions = [
  { channels: 16, stride: 2 },
  { channels: 24, stride: 2 },
  { channels: 48, stride: 2 },
  { channels: 64, stride: 1 },
] as const;

/**
 * The `parts` network without weights (all zero): input `image` [batch, 3, 64, 64], outputs `logits` [batch, 6] and
 * `embedding` [batch, 32]. About 47,000 parameters and 3.8 million products a frame.
 */
export function buildPartsNet(): Uint8Array {
  const builder = new GraphBuilder();
  const zeros = (name: string, dims: readonly number[]): string =>
    builder.initializer(
      float32Tensor(name, dims, new Float32Array(dims.reduce((product, dim) => product * dim, 1))),
    );
  let at = builder.input("image", "float32", ["batch", 3, partsFrameSize, partsFrameSize]);
  let channels = 3;
  convolutions.forEach((layer, index) => {
    const weight = zeros(`conv${index + 1}.weight`, [layer.channels, channels, 3, 3]);
    const bias = zeros(`conv${index + 1}.bias`, [layer.channels]);
    const [convolved] = builder.node("Conv", [at, weight, bias], {
      kernel_shape: { ints: [3, 3] },
      strides: { ints: [layer.stride, layer.stride] },
      pads: { ints: [1, 1, 1, 1] },
    });
    [at] = builder.node("Relu", [convolved]);
    channels = layer.channels;
  });
  const [pooled] = builder.node("GlobalAveragePool", [at]);
  const [flat] = builder.node("Flatten", [pooled], { axis: { i: 1 } });
  const dense = (input: string, name: string, from: number, to: number, output?: string): string =>
    builder.node(
      "Gemm",
      [input, zeros(`${name}.weight`, [to, from]), zeros(`${name}.bias`, [to])],
      { transB: { i: 1 } },
      output === undefined ? 1 : [output],
    )[0];
  const [embedding] = builder.node("Relu", [dense(flat, "embed", channels, embeddingLength)], {}, [
    "embedding",
  ]);
  dense(embedding, "head", embeddingLength, partClasses.length, "logits");
  builder.output("logits", "float32", ["batch", partClasses.length]);
  builder.output("embedding", "float32", ["batch", embeddingLength]);
  return encodeModel(builder.build({ opset: 17, producer: "fieldloop", graphName: "parts" }));
}
