/**
 * How the numbers of a tensor lie in a file, and how the difference of two is taken: always a bijection between equal sizes, so that any
 * bytes can be rebuilt, sensible numbers or not.
 */
export interface ElementKind {
  readonly name: string;
  readonly bytes: 1 | 2 | 4;
  /** Bits of a float are put in the order of the numbers before they are subtracted, so that close numbers differ little. */
  readonly float: boolean;
}

/** By the number that stands for them in a delta: append only. */
export const ELEMENT_KINDS: readonly ElementKind[] = [
  { name: "8-bit integers", bytes: 1, float: false },
  { name: "16-bit integers", bytes: 2, float: false },
  { name: "32-bit integers", bytes: 4, float: false },
  { name: "16-bit floats", bytes: 2, float: true },
  { name: "32-bit floats", bytes: 4, float: true },
];
/** 8-bit integers have a codec of their own; see `levels.ts`. */
export const LEVELS_KIND = 0;

/** Kind for an ONNX element type (`TensorProto.DataType`); undefined for those that are not compared number by number. */
export function kindOfDataType(dataType: number): number | undefined {
  return KINDS_BY_TYPE.get(dataType);
}

const KINDS_BY_TYPE: ReadonlyMap<number, number> = new Map([
  // UINT8, INT8, BOOL and the four float8 types
  ...[2, 3, 9, 17, 18, 19, 20].map((type): [number, number] => [type, 0]),
  // UINT16, INT16
  ...[4, 5].map((type): [number, number] => [type, 1]),
  // INT32, UINT32
  ...[6, 12].map((type): [number, number] => [type, 2]),
  // FLOAT16, BFLOAT16
  ...[10, 16].map((type): [number, number] => [type, 3]),
  // FLOAT
  [1, 4],
]);
