import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType } from "../backend.js";
import { elementCountOf } from "../package/tensor-bytes.js";
import { OIP_LIMITS } from "./limits.js";

/** Inputs that are a file and no tensor: `BYTES` of one element with the parameter `content_type`. */

const ENCODED_TYPES = new Set(["image/jpeg", "image/png", "image/webp"]);

/** The media type of an input that is a file; undefined for a tensor. Other values of the parameter are conventions of other servers. */
export function encodedTypeOf(type: ElementType, contentType: unknown): string | undefined {
  if (type !== "string" || typeof contentType !== "string") return undefined;
  const media = contentType.trim().toLowerCase();
  return ENCODED_TYPES.has(media) ? media : undefined;
}

/** One file behind its length in 4 bytes, as the binary data extension has every text. @throws FieldloopError `tensor_invalid` */
export function encodedFromRaw(dims: readonly number[], bytes: Uint8Array): Uint8Array {
  checkCount(dims);
  const length = bytes.length < 4 ? -1 : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (length !== bytes.length - 4) {
    throw refuse(`${bytes.length} bytes are no length in 4 bytes with as many behind it`);
  }
  return checkSize(bytes.subarray(4));
}

/** One file as base64, the form that JSON has for bytes. @throws FieldloopError `tensor_invalid` */
export function encodedFromJson(dims: readonly number[], data: unknown): Uint8Array {
  checkCount(dims);
  const [text] = Array.isArray(data) && data.length === 1 ? (data as unknown[]) : [];
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) {
    throw refuse("an image in JSON is one text of base64");
  }
  try {
    return checkSize(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
  } catch (cause) {
    if (cause instanceof FieldloopError) throw cause;
    throw new FieldloopError("tensor_invalid", "Read image: it is no base64", { cause });
  }
}

/** One file as gRPC's typed contents give it. @throws FieldloopError `tensor_invalid` */
export function encodedFromContents(dims: readonly number[], contents: readonly Uint8Array[]): Uint8Array {
  checkCount(dims);
  if (contents.length !== 1) throw refuse(`${contents.length} contents, wanted one`);
  return checkSize(contents[0]!);
}

function checkCount(dims: readonly number[]): void {
  if (elementCountOf(dims) !== 1) throw refuse(`[${dims.join(", ")}] wants another number of them than one`);
}

function checkSize(bytes: Uint8Array): Uint8Array {
  if (bytes.length <= OIP_LIMITS.textBytesMax) return bytes;
  throw new FieldloopError(
    "limit_exceeded",
    `Read image: ${bytes.length} bytes, at most ${OIP_LIMITS.textBytesMax}`,
  );
}

function refuse(what: string): FieldloopError {
  return new FieldloopError("tensor_invalid", `Read image: ${what}`);
}
