import {
  decodeModel,
  encodeModel,
  float32Tensor,
  GraphBuilder,
  graphOf,
  initializerMap,
  replaceInitializers,
  scalarFloat32Tensor,
  tensorToFloat32,
} from "@fieldloop/runtime";
import { bearingSampling } from "@fieldloop/runtime/simulate";

/** Values between encoder and decoder: also the embedding output. */
export const bearingCodeLength = 20;

const hidden = 96;

/**
 * The `bearing` autoencoder without weights (all zero): input `window` [batch, 256], outputs `reconstruction`
 * [batch, 256] and `embedding` [batch, 20]. Dense 256-96-20-96-256, about 53,000 parameters. With `boundedCode` the
 * code is clipped to -1..1: see {@link boundCode}.
 */
export function buildBearingNet(boundedCode = false): Uint8Array {
  const builder = new GraphBuilder();
  const zeros = (name: string, dims: readonly number[]): string =>
    builder.initializer(
      float32Tensor(name, dims, new Float32Array(dims.reduce((product, dim) => product * dim, 1))),
    );
  const { windowLength } = bearingSampling;
  const dense = (input: string, name: string, from: number, to: number, output?: string): string =>
    builder.node(
      "Gemm",
      [input, zeros(`${name}.weight`, [to, from]), zeros(`${name}.bias`, [to])],
      { transB: { i: 1 } },
      output === undefined ? 1 : [output],
    )[0];
  const relu = (input: string): string => builder.node("Relu", [input])[0];
  const window = builder.input("window", "float32", ["batch", windowLength]);
  const encoded = relu(dense(window, "encode", windowLength, hidden));
  const free = dense(encoded, "code", hidden, bearingCodeLength, boundedCode ? undefined : "embedding");
  const bound = (value: number): string => builder.initializer(scalarFloat32Tensor("", value));
  const code = boundedCode ? builder.node("Clip", [free, bound(-1), bound(1)], {}, ["embedding"])[0] : free;
  const decoded = relu(dense(code, "decode", bearingCodeLength, hidden));
  dense(decoded, "restore", hidden, windowLength, "reconstruction");
  builder.output("reconstruction", "float32", ["batch", windowLength]);
  builder.output("embedding", "float32", ["batch", bearingCodeLength]);
  return encodeModel(builder.build({ opset: 17, producer: "fieldloop", graphName: "bearing" }));
}

/**
 * Keeps the code of a trained autoencoder within the range that it had on sound machines. A network of rectifiers
 * follows a signal that merely grows (imbalance) far beyond what it was trained on, restores it well, and sees nothing.
 * Each value of the code is scaled so that its range over `codes` ([rows, 20]) becomes -1..1, the decoder undoes the
 * scale, and a Clip stands between them: within the range the result is the same network.
 */
export function boundCode(model: Uint8Array, codes: Float32Array): Uint8Array {
  const weights = new Map(
    [...initializerMap(graphOf(decodeModel(model)))].map(([name, tensor]) => [name, tensorToFloat32(tensor)]),
  );
  const { middle, half } = rangeOf(codes);
  const code = { weight: weights.get("code.weight")!, bias: weights.get("code.bias")! };
  const decode = { weight: weights.get("decode.weight")!, bias: weights.get("decode.bias")! };
  for (let row = 0; row < hidden; row++) {
    for (let k = 0; k < bearingCodeLength; k++) {
      decode.bias[row] += decode.weight[row * bearingCodeLength + k] * middle[k];
      decode.weight[row * bearingCodeLength + k] *= half[k];
    }
  }
  for (let k = 0; k < bearingCodeLength; k++) {
    code.bias[k] = (code.bias[k] - middle[k]) / half[k];
    for (let from = 0; from < hidden; from++) code.weight[k * hidden + from] /= half[k];
  }
  const bounded = decodeModel(buildBearingNet(true));
  replaceInitializers(bounded, weights);
  return encodeModel(bounded);
}

function rangeOf(codes: Float32Array): { middle: Float32Array; half: Float32Array } {
  const low = new Float32Array(bearingCodeLength).fill(Infinity);
  const high = new Float32Array(bearingCodeLength).fill(-Infinity);
  codes.forEach((value, at) => {
    const k = at % bearingCodeLength;
    low[k] = Math.min(low[k], value);
    high[k] = Math.max(high[k], value);
  });
  return {
    middle: low.map((value, k) => (value + high[k]) / 2),
    half: low.map((value, k) => Math.max((high[k] - value) / 2, 1e-6)),
  };
}
