import { floatAttribute, intAttribute } from "../graph.js";
import { outputGradient, refuse, type GradientRule } from "./rule.js";

/** Gemm: Y = alpha A'B' + beta C with A', B' transposed as asked. */
export const gemmGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const dY = outputGradient(context);
  const a = context.input(0);
  const b = context.input(1);
  const alpha = floatAttribute(node, "alpha", 1);
  const transA = intAttribute(node, "transA", 0) === 1;
  const transB = intAttribute(node, "transB", 0) === 1;
  let dA, dB, dC;
  if (context.needs(0)) {
    dA = transA
      ? emit.gemm(b, dY, { transA: transB, transB: true, alpha })
      : emit.gemm(dY, b, { transB: !transB, alpha });
  }
  if (context.needs(1)) {
    dB = transB
      ? emit.gemm(dY, a, { transA: true, transB: transA, alpha })
      : emit.gemm(a, dY, { transA: !transA, alpha });
  }
  if (node.inputs[2] && context.needs(2)) {
    dC = emit.unbroadcast(emit.scale(dY, floatAttribute(node, "beta", 1)), context.input(2).dims);
  }
  return [dA, dB, dC];
};

/** MatMul with batch broadcasting; a weight matrix under a batched input becomes one Gemm over all rows. */
export const matMulGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const dY = outputGradient(context);
  const a = context.input(0);
  const b = context.input(1);
  if (a.dims.length < 2 || b.dims.length < 2)
    throw refuse(node, "vectors have no gradient here, only matrices");
  const dA = context.needs(0) ? emit.unbroadcast(emit.matmul(dY, emit.swap(b)), a.dims) : undefined;
  let dB;
  if (context.needs(1)) {
    if (b.dims.length === 2 && a.dims.length > 2) {
      const [inner, columns] = [b.dims[0]!, b.dims[1]!];
      const rows = a.dims.slice(0, -1).reduce((product, dim) => product * dim, 1);
      dB = emit.gemm(emit.reshape(a, [rows, inner]), emit.reshape(dY, [rows, columns]), { transA: true });
    } else {
      dB = emit.unbroadcast(emit.matmul(emit.swap(a), dY), b.dims);
    }
  }
  return [dA, dB];
};
