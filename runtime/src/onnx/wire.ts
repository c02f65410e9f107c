import { ScalarType, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import { ONNX_LIMITS } from "./limits.js";

/** Where one field lies in a protobuf message: `start` is its tag, [`valueStart`, `end`) its value (after a length). */
export interface WireField {
  readonly number: number;
  readonly wireType: number;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

export const WIRE_VARINT = 0;
export const WIRE_FIXED64 = 1;
export const WIRE_BYTES = 2;
export const WIRE_FIXED32 = 5;

/** Reads the varint at `at`; the value is exact below 2^53, which covers every tag and length (protobuf encoding guide). */
export function readVarint(bytes: Uint8Array, at: number, end: number): { value: number; next: number } {
  let value = 0;
  let scale = 1;
  for (let next = at; next < end && next < at + 10; next++) {
    const byte = bytes[next]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return { value, next: next + 1 };
    scale *= 128;
  }
  throw malformed(`the varint at byte ${at} does not end`);
}

/** Reads the field whose tag starts at `at`, inside a message that ends at `end`. Groups (proto1) are refused. */
export function readField(bytes: Uint8Array, at: number, end: number): WireField {
  const tag = readVarint(bytes, at, end);
  const number = Math.floor(tag.value / 8);
  const wireType = tag.value % 8;
  if (number < 1 || number > 0x1fffffff) throw malformed(`field number ${number} at byte ${at}`);
  let valueStart = tag.next;
  let next: number;
  if (wireType === WIRE_VARINT) next = readVarint(bytes, valueStart, end).next;
  else if (wireType === WIRE_FIXED64) next = valueStart + 8;
  else if (wireType === WIRE_FIXED32) next = valueStart + 4;
  else if (wireType === WIRE_BYTES) {
    const length = readVarint(bytes, valueStart, end);
    valueStart = length.next;
    next = valueStart + length.value;
  } else throw malformed(`wire type ${wireType} of field ${number} at byte ${at}`);
  if (next > end) {
    throw malformed(
      end === bytes.length
        ? `the file ends ${next - end} bytes before field ${number} at byte ${at} does: it is cut short`
        : `field ${number} at byte ${at} ends ${next - end} bytes after its message`,
    );
  }
  return { number, wireType, start: at, valueStart, end: next };
}

/**
 * Walks the wire form before anything is decoded: well-formed framing, nesting depth, number of fields, and
 * numbers in typed fields all within limits. Decoding afterwards can neither overflow the stack
 * nor allocate far more than the file's own size. Works with a stack of its own, so depth costs no recursion.
 */
export function scanWire(
  bytes: Uint8Array,
  root: DescMessage,
  limits: { readonly wireFieldsMax: number; readonly typedElementsMax: number } = ONNX_LIMITS,
): void {
  const stack = [{ message: root, at: 0, end: bytes.length }];
  let fieldCount = 0;
  let typedElements = 0;
  while (stack.length > 0) {
    const top = stack[stack.length - 1]!;
    if (top.at >= top.end) {
      stack.pop();
      continue;
    }
    const field = readField(bytes, top.at, top.end);
    top.at = field.end;
    if (++fieldCount > limits.wireFieldsMax) {
      throw tooLarge(`more than ${limits.wireFieldsMax} protobuf fields`);
    }
    if (field.wireType !== WIRE_BYTES) continue;
    const known = fieldsOf(top.message).get(field.number);
    if (known?.message && known.fieldKind !== "map") {
      if (stack.length >= ONNX_LIMITS.messageDepthMax) {
        throw new FieldloopError(
          "onnx_too_deep",
          `Read ONNX: message "${known.message.name}" at byte ${field.start} is nested ${stack.length} deep, at most ${ONNX_LIMITS.messageDepthMax} allowed`,
        );
      }
      stack.push({ message: known.message, at: field.valueStart, end: field.end });
    } else if (known?.fieldKind === "list" && isNumeric(known)) {
      typedElements += packedCount(bytes, field, known.scalar);
      if (typedElements > limits.typedElementsMax) {
        throw tooLarge(`more than ${limits.typedElementsMax} numbers outside raw data`);
      }
    }
  }
}

const fieldTables = new WeakMap<DescMessage, Map<number, DescField>>();

export function fieldsOf(message: DescMessage): Map<number, DescField> {
  let table = fieldTables.get(message);
  if (!table) {
    table = new Map(message.fields.map((field) => [field.number, field]));
    fieldTables.set(message, table);
  }
  return table;
}

function isNumeric(field: DescField): boolean {
  return (
    field.scalar !== undefined && field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BYTES
  );
}

function packedCount(bytes: Uint8Array, field: WireField, scalar: ScalarType | undefined): number {
  const length = field.end - field.valueStart;
  if (scalar === ScalarType.FLOAT) return length / 4;
  if (scalar === ScalarType.DOUBLE) return length / 8;
  let count = 0;
  for (let at = field.valueStart; at < field.end; at++) if (bytes[at]! < 0x80) count++;
  return count;
}

function malformed(what: string): FieldloopError {
  return new FieldloopError("onnx_malformed", `Read ONNX: not a well-formed protobuf: ${what}`);
}

function tooLarge(what: string): FieldloopError {
  return new FieldloopError("onnx_too_large", `Read ONNX: ${what}`);
}
