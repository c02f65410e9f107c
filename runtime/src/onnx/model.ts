import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import { ModelProtoSchema, type ModelProto } from "./generated/onnx_pb.js";
import { ONNX_LIMITS } from "./limits.js";
import { scanWire } from "./wire.js";

/**
 * Decodes an ONNX file. Raw tensor data stays a view into `bytes`, often unaligned: read it through `tensor.ts`.
 * Throws `onnx_too_large`, `onnx_too_deep` or `onnx_malformed`; says nothing about whether the graph makes sense
 * (that is `checkModel`).
 */
export function decodeModel(
  bytes: Uint8Array,
  options: { readonly modelBytesMax?: number } = {},
): ModelProto {
  const bytesMax = options.modelBytesMax ?? ONNX_LIMITS.modelBytesMax;
  if (bytes.length > bytesMax) {
    throw new FieldloopError(
      "onnx_too_large",
      `Read ONNX: the file has ${bytes.length} bytes, at most ${bytesMax} allowed`,
    );
  }
  scanWire(bytes, ModelProtoSchema);
  let model: ModelProto;
  try {
    model = fromBinary(ModelProtoSchema, bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("onnx_malformed", `Read ONNX: ${reason}`, { cause });
  }
  if (!model.graph) throw new FieldloopError("onnx_malformed", "Read ONNX: the file holds no graph");
  return model;
}

/** Encodes a model; unknown fields of a decoded file are written back. Deterministic for equal messages. */
export function encodeModel(model: ModelProto): Uint8Array {
  return toBinary(ModelProtoSchema, model);
}

/** The graph of a decoded or built model, which always has one. */
export function graphOf(model: ModelProto): NonNullable<ModelProto["graph"]> {
  if (!model.graph) throw new FieldloopError("onnx_malformed", "Read ONNX: the model holds no graph");
  return model.graph;
}

/** Version of the default operator set (domain `""` or `"ai.onnx"`), 0 when the model imports none. */
export function opsetVersion(model: ModelProto, domain = ""): number {
  const wanted = domain === "ai.onnx" ? "" : domain;
  for (const entry of model.opsetImport) {
    if ((entry.domain === "ai.onnx" ? "" : entry.domain) === wanted) return Number(entry.version);
  }
  return 0;
}
