import { clearField } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import { TensorProto_DataType, TensorProtoSchema, type ModelProto } from "./generated/onnx_pb.js";
import { initializerMap } from "./graph.js";
import { graphOf } from "./model.js";
import { elementCount, tensorDims } from "./tensor.js";

/**
 * Puts new values into float32 initializers, in place; names, dimensions, order and every other field stay, so a file
 * encoded from the result differs from the original in those values alone. `values` are copied.
 * Throws `not_found` for an unknown name, `invalid_argument` for another count or for values that are not finite.
 */
export function replaceInitializers(model: ModelProto, values: ReadonlyMap<string, Float32Array>): void {
  const initializers = initializerMap(graphOf(model));
  for (const [name, data] of values) {
    const tensor = initializers.get(name);
    if (!tensor) throw new FieldloopError("not_found", `Replace initializer "${name}": the graph has none`);
    if (tensor.dataType !== TensorProto_DataType.FLOAT) {
      throw new FieldloopError("invalid_argument", `Replace initializer "${name}": it is not float32`);
    }
    const wanted = elementCount(tensorDims(tensor));
    if (data.length !== wanted) {
      throw new FieldloopError(
        "invalid_argument",
        `Replace initializer "${name}": ${data.length} values, ${wanted} wanted`,
      );
    }
    if (!data.every(Number.isFinite)) {
      throw new FieldloopError("invalid_argument", `Replace initializer "${name}": a value is not finite`);
    }
    if (tensor.floatData.length > 0) {
      tensor.floatData = Array.from(data);
    } else {
      tensor.rawData = new Uint8Array(data.slice().buffer);
      clearField(tensor, TensorProtoSchema.field.floatData);
    }
  }
}
