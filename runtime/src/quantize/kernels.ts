import type { Backend } from "../backend.js";
import { inspectModel } from "../onnx/inspect.js";
import type { FoldModel, KernelReport } from "./types.js";

/** Kernels of ONNX Runtime's CPU provider that compute on 8-bit integers. */
const INTEGER_KERNEL = /(^|:)(QLinear\w+|QGemm|Q?MatMulInteger\w*|ConvInteger|DynamicQuantizeMatMul)$/;
/** Convolutions and matrix products in float, fused or not. */
const FLOAT_KERNEL = /(^|:)((Nhwc)?(Fused)?Conv|ConvTranspose|(Fused)?Gemm|(Fused)?MatMul)$/;

/** Lets the backend fuse a quantized model as for running it and counts what came of it. */
export async function countKernels(
  backend: Backend,
  fold: FoldModel,
  bytes: Uint8Array,
): Promise<KernelReport> {
  const { operators } = inspectModel(await fold(backend, bytes, "extended"));
  const count = (pattern: RegExp) =>
    Object.entries(operators).reduce((sum, [name, times]) => sum + (pattern.test(name) ? times : 0), 0);
  return { integer: count(INTEGER_KERNEL), float: count(FLOAT_KERNEL), operators };
}
