import { clearField } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import {
  TensorProto_DataLocation,
  TensorProtoSchema,
  type GraphProto,
  type ModelProto,
  type TensorProto,
} from "./generated/onnx_pb.js";
import { subgraphsOf } from "./graph.js";
import { graphOf } from "./model.js";
import { isExternal } from "./tensor.js";

/** Where a stored tensor's values lie (onnx/docs/ExternalData.md). */
export interface ExternalData {
  /** As the file says it; nothing about it is trusted. */
  readonly location: string;
  readonly offset: number;
  /** `undefined` means to the end. */
  readonly length: number | undefined;
}

/** Reads one range of a file beside the model. Whatever leaves the model's own folder must be refused here. */
export type ReadExternal = (data: ExternalData, tensor: string) => Promise<Uint8Array>;

/** Every stored tensor of a model whose values lie in another file. */
export function externalTensors(model: ModelProto): TensorProto[] {
  const found: TensorProto[] = [];
  const add = (tensor: TensorProto | undefined) => {
    if (tensor !== undefined && isExternal(tensor)) found.push(tensor);
  };
  const visit = (nodes: GraphProto["node"]) => {
    for (const node of nodes) {
      for (const entry of node.attribute) {
        add(entry.t);
        entry.tensors.forEach(add);
      }
      for (const body of subgraphsOf(node)) {
        body.initializer.forEach(add);
        visit(body.node);
      }
    }
  };
  const graph = graphOf(model);
  graph.initializer.forEach(add);
  visit(graph.node);
  for (const body of model.functions) {
    visit(body.node);
    for (const entry of body.attributeProto) {
      add(entry.t);
      entry.tensors.forEach(add);
    }
  }
  return found;
}

/**
 * Brings values that lie in other files into the model, in place.
 * @returns how many tensors, and how many bytes
 * @throws FieldloopError `onnx_external_data` for a reference that is not whole, and what `read` throws; `onnx_too_large` beyond `bytesMax`
 */
export async function inlineExternalData(
  model: ModelProto,
  read: ReadExternal,
  bytesMax: number,
): Promise<{ tensors: number; bytes: number }> {
  const tensors = externalTensors(model);
  let bytes = 0;
  for (const tensor of tensors) {
    const data = await read(externalDataOf(tensor), tensor.name);
    bytes += data.length;
    if (bytes > bytesMax) {
      throw new FieldloopError("onnx_too_large", `Inline external data: more than ${bytesMax} bytes in all`);
    }
    tensor.rawData = data;
    tensor.externalData = [];
    clearField(tensor, TensorProtoSchema.field.dataLocation);
  }
  return { tensors: tensors.length, bytes };
}

function externalDataOf(tensor: TensorProto): ExternalData {
  const entries = new Map(tensor.externalData.map((entry) => [entry.key, entry.value]));
  const location = entries.get("location");
  if (tensor.dataLocation !== TensorProto_DataLocation.EXTERNAL || location === undefined) {
    throw new FieldloopError(
      "onnx_external_data",
      `Inline external data: tensor "${tensor.name}" does not say where its data is`,
    );
  }
  const number = (key: string): number | undefined => {
    const text = entries.get(key);
    if (text === undefined) return undefined;
    if (!/^\d{1,15}$/.test(text)) {
      throw new FieldloopError(
        "onnx_external_data",
        `Inline external data: ${key} "${text.slice(0, 40)}" of tensor "${tensor.name}"`,
      );
    }
    return Number(text);
  };
  return { location, offset: number("offset") ?? 0, length: number("length") };
}
