import type { Backend } from "../backend.js";
import type { GraphProto } from "../onnx/generated/onnx_pb.js";
import { subgraphsOf } from "../onnx/graph.js";
import { inspectModel } from "../onnx/inspect.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import type { FoldModel, KernelReport } from "./types.js";

/** Kernels of ONNX Runtime's CPU provider that compute on 8-bit integers. */
const INTEGER_KERNEL =
  /(^|:)(QLinear\w+|QGemm|Q?MatMulInteger\w*|ConvInteger|DynamicQuantize(MatMul|LSTM)|MatMulNBits|QAttention)$/;
/** Convolutions and matrix products in float, fused or not. */
const FLOAT_KERNEL = /(^|:)((Nhwc)?(Fused)?Conv|ConvTranspose|(Fused)?Gemm|(Fused)?MatMul|LSTM|GRU|RNN)$/;

/** Lets the backend fuse a quantized model as for running it and counts what came of it. */
export async function countKernels(
  backend: Backend,
  fold: FoldModel,
  bytes: Uint8Array,
  config?: Readonly<Record<string, string>>,
): Promise<KernelReport> {
  const optimized = await fold(backend, bytes, "extended", config);
  const { operators } = inspectModel(optimized);
  const count = (pattern: RegExp) =>
    Object.entries(operators).reduce((sum, [name, times]) => sum + (pattern.test(name) ? times : 0), 0);
  return {
    integer: count(INTEGER_KERNEL),
    float: count(FLOAT_KERNEL),
    operators,
    floatNodes: floatNodes(graphOf(decodeModel(optimized))),
  };
}

function floatNodes(graph: GraphProto): string[] {
  return graph.node.flatMap((node) => [
    ...(FLOAT_KERNEL.test(node.opType) ? [`${node.name || node.output[0]} (${node.opType})`] : []),
    ...subgraphsOf(node).flatMap(floatNodes),
  ]);
}
