import { convGradient, convTransposeGradient } from "./convolution.js";
import { gemmGradient, matMulGradient } from "./dense.js";
import * as elementwise from "./elementwise.js";
import {
  batchNormalizationGradient,
  layerNormalizationGradient,
  logSoftmaxGradient,
  softmaxGradient,
} from "./normalization.js";
import { averagePoolGradient, globalAveragePoolGradient, maxPoolGradient } from "./pooling.js";
import type { GradientRule } from "./rule.js";
import * as shape from "./shape.js";

/** Gradient rule per ONNX operator: this table is also the list of what can be trained through. */
export const GRADIENT_RULES: Readonly<Record<string, GradientRule>> = {
  Abs: elementwise.absGradient,
  Add: elementwise.addGradient,
  AveragePool: averagePoolGradient,
  BatchNormalization: batchNormalizationGradient,
  Clip: elementwise.clipGradient,
  Concat: shape.concatGradient,
  Conv: convGradient,
  ConvTranspose: convTransposeGradient,
  Div: elementwise.divGradient,
  Dropout: shape.identityGradient,
  Erf: elementwise.erfGradient,
  Exp: elementwise.expGradient,
  Expand: shape.expandGradient,
  Flatten: shape.reshapeGradient,
  Gather: shape.gatherGradient,
  Gelu: elementwise.geluGradient,
  Gemm: gemmGradient,
  GlobalAveragePool: globalAveragePoolGradient,
  HardSigmoid: elementwise.hardSigmoidGradient,
  HardSwish: elementwise.hardSwishGradient,
  Identity: shape.identityGradient,
  LayerNormalization: layerNormalizationGradient,
  LeakyRelu: elementwise.leakyReluGradient,
  Log: elementwise.logGradient,
  LogSoftmax: logSoftmaxGradient,
  MatMul: matMulGradient,
  MaxPool: maxPoolGradient,
  Mul: elementwise.mulGradient,
  Neg: elementwise.negGradient,
  PRelu: elementwise.preluGradient,
  Pad: shape.padGradient,
  Pow: elementwise.powGradient,
  ReduceMean: shape.reduceMeanGradient,
  ReduceSum: shape.reduceSumGradient,
  Relu: elementwise.reluGradient,
  Reshape: shape.reshapeGradient,
  Resize: shape.resizeGradient,
  Sigmoid: elementwise.sigmoidGradient,
  Slice: shape.sliceGradient,
  Softmax: softmaxGradient,
  Softplus: elementwise.softplusGradient,
  Split: shape.splitGradient,
  Sqrt: elementwise.sqrtGradient,
  Squeeze: shape.reshapeGradient,
  Sub: elementwise.subGradient,
  Tanh: elementwise.tanhGradient,
  Transpose: shape.transposeGradient,
  Unsqueeze: shape.reshapeGradient,
};

/** Operators with a gradient, sorted. */
export const TRAINABLE_OPS: readonly string[] = Object.keys(GRADIENT_RULES).sort();
