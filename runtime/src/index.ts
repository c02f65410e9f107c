export type {
  Backend,
  ElementType,
  Session,
  SessionOptions,
  Tensor,
  TensorData,
  TensorInfo,
} from "./backend.js";

// ONNX graphs
export type {
  AttributeProto,
  GraphProto,
  ModelProto,
  NodeProto,
  TensorProto,
  ValueInfoProto,
} from "./onnx/generated/onnx_pb.js";
export { GraphBuilder, valueInfo, type BuildOptions } from "./onnx/builder.js";
export {
  attribute,
  consumerMap,
  definedNames,
  floatAttribute,
  initializerMap,
  intAttribute,
  intsAttribute,
  makeAttribute,
  makeNode,
  namesRead,
  nodeProducing,
  producerMap,
  pruneDead,
  renameTensor,
  sortedNodes,
  stringAttribute,
  subgraphsOf,
  type AttributeValue,
} from "./onnx/graph.js";
export { ONNX_LIMITS } from "./onnx/limits.js";
export { decodeModel, encodeModel, graphOf, opsetVersion } from "./onnx/model.js";
export {
  boolTensor,
  dataTypeOf,
  elementCount,
  elementTypeOf,
  float32Tensor,
  int32Tensor,
  int64Tensor,
  int8Tensor,
  scalarFloat32Tensor,
  scalarInt32Tensor,
  scalarInt64Tensor,
  scalarInt8Tensor,
  scalarUint8Tensor,
  tensorDims,
  tensorElementType,
  tensorToFloat32,
  tensorToInt64Numbers,
  uint8Tensor,
} from "./onnx/tensor.js";
