import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { bearingSampling } from "@fieldloop/runtime/simulate";

/** Values between encoder and decoder: also the embedding output. */
export const bearingCodeLength = 20;

const hidden = 96;

/**
 * The `bearing` autoencoder without weights (all zero): input `window` [batch, 256], outputs `reconstruction`
 * [batch, 256] and `embedding` [batch, 20]. Dense 256-96-20-96-256, about 53,000 parameters.
 */
export function buildBearingNet(): Uint8Array {
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
  const code = dense(encoded, "code", hidden, bearingCodeLength, "embedding");
  const decoded = relu(dense(code, "decode", bearingCodeLength, hidden));
  dense(decoded, "restore", hidden, windowLength, "reconstruction");
  builder.output("reconstruction", "float32", ["batch", windowLength]);
  builder.output("embedding", "float32", ["batch", bearingCodeLength]);
  return encodeModel(builder.build({ opset: 17, producer: "fieldloop", graphName: "bearing" }));
}
