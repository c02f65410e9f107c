import { FieldloopError, type ErrorCode } from "./errors.js";
import { LIMITS } from "./limits.js";

/**
 * A strict subset of CBOR (RFC 8949) with typed arrays (RFC 8746). Definite lengths only, text map keys without
 * duplicates, safe integers, float32/float64, tags 64–87 only where they name a little-endian JavaScript typed array.
 * General libraries accept bignums (quadratic), duplicate keys and unbounded depth; a hostile device must not.
 */
export type CborValue =
  | number
  | boolean
  | null
  | string
  | CborTypedArray
  | readonly CborValue[]
  | { readonly [key: string]: CborValue | undefined };

export type CborTypedArray =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** RFC 8746 section 2.1, the little-endian forms. Plain byte strings decode to Uint8Array without a tag. */
const TYPED_ARRAYS = [
  { tag: 69, make: Uint16Array },
  { tag: 70, make: Uint32Array },
  { tag: 72, make: Int8Array },
  { tag: 77, make: Int16Array },
  { tag: 78, make: Int32Array },
  { tag: 85, make: Float32Array },
  { tag: 86, make: Float64Array },
] as const;

const MAJOR = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5, tag: 6, simple: 7 } as const;

export interface CborLimits {
  readonly depthMax: number;
  readonly itemsMax: number;
}

const DEFAULT_LIMITS: CborLimits = { depthMax: LIMITS.cborDepthMax, itemsMax: LIMITS.cborItemsMax };

/** Encodes deterministically: shortest integers, float32 where exact, object keys in insertion order, `undefined` left out. */
export function encodeCbor(value: CborValue): Uint8Array {
  const writer = new Writer();
  writer.value(value, 0);
  return writer.finish();
}

/**
 * Decodes exactly one item that fills `bytes`.
 * @throws FieldloopError with a `cbor_*` code; never anything else, and never allocates more than the input claims and holds
 */
export function decodeCbor(bytes: Uint8Array, limits: CborLimits = DEFAULT_LIMITS): CborValue {
  const reader = new Reader(bytes, limits);
  const value = reader.value(0);
  if (reader.at !== bytes.length) {
    throw new FieldloopError(
      "cbor_trailing_bytes",
      `Decode CBOR: ${bytes.length - reader.at} bytes follow the item`,
    );
  }
  return value;
}

class Writer {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }

  value(value: CborValue, depth: number): void {
    if (depth > LIMITS.cborDepthMax) refuse("cbor_too_deep", `nested deeper than ${LIMITS.cborDepthMax}`);
    if (value === null) this.#byte(0xf6);
    else if (typeof value === "boolean") this.#byte(value ? 0xf5 : 0xf4);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "string") this.#text(value);
    else if (ArrayBuffer.isView(value)) this.#typedArray(value as CborTypedArray);
    else if (Array.isArray(value)) {
      this.#head(MAJOR.array, value.length);
      for (const item of value as readonly CborValue[]) this.value(item, depth + 1);
    } else this.#map(value as { readonly [key: string]: CborValue | undefined }, depth);
  }

  #map(map: { readonly [key: string]: CborValue | undefined }, depth: number): void {
    const entries = Object.entries(map).filter(
      (entry): entry is [string, CborValue] => entry[1] !== undefined,
    );
    this.#head(MAJOR.map, entries.length);
    for (const [key, item] of entries) {
      this.#text(key);
      this.value(item, depth + 1);
    }
  }

  #number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
      if (value >= 0) this.#head(MAJOR.unsigned, value);
      else this.#head(MAJOR.negative, -1 - value);
    } else if (Math.fround(value) === value || Number.isNaN(value)) {
      this.#reserve(5);
      this.#byte(0xfa);
      this.#view.setFloat32(this.#at, value);
      this.#at += 4;
    } else {
      this.#reserve(9);
      this.#byte(0xfb);
      this.#view.setFloat64(this.#at, value);
      this.#at += 8;
    }
  }

  #text(text: string): void {
    const utf8 = textEncoder.encode(text);
    this.#head(MAJOR.text, utf8.length);
    this.#raw(utf8);
  }

  #typedArray(array: CborTypedArray): void {
    if (!(array instanceof Uint8Array)) {
      const form = TYPED_ARRAYS.find((candidate) => array instanceof candidate.make);
      if (!form) refuse("cbor_malformed", `cannot encode a ${array.constructor.name}`);
      this.#head(MAJOR.tag, form.tag);
    }
    this.#head(MAJOR.bytes, array.byteLength);
    this.#raw(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  }

  #head(major: number, value: number): void {
    this.#reserve(9);
    const lead = major << 5;
    if (value < 24) this.#byte(lead | value);
    else if (value < 0x100) {
      this.#byte(lead | 24);
      this.#byte(value);
    } else if (value < 0x10000) {
      this.#byte(lead | 25);
      this.#view.setUint16(this.#at, value);
      this.#at += 2;
    } else if (value < 0x100000000) {
      this.#byte(lead | 26);
      this.#view.setUint32(this.#at, value);
      this.#at += 4;
    } else {
      this.#byte(lead | 27);
      this.#view.setBigUint64(this.#at, BigInt(value));
      this.#at += 8;
    }
  }

  #byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#at++] = value;
  }

  #raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #reserve(count: number): void {
    if (this.#at + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + count));
    grown.set(this.#bytes);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

class Reader {
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #limits: CborLimits;
  #items = 0;

  constructor(bytes: Uint8Array, limits: CborLimits) {
    // A plain view, because `slice` of a Buffer is no copy: typed arrays would read its pool from the start.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#limits = limits;
  }

  value(depth: number): CborValue {
    if (depth > this.#limits.depthMax) refuse("cbor_too_deep", `nested deeper than ${this.#limits.depthMax}`);
    if (++this.#items > this.#limits.itemsMax)
      refuse("cbor_too_many_items", `more than ${this.#limits.itemsMax} items`);
    const lead = this.#take(1);
    const major = lead >> 5;
    const info = lead & 0x1f;
    if (major === MAJOR.simple) return this.#simple(info);
    const argument = this.#argument(info);
    switch (major) {
      case MAJOR.unsigned:
        return argument;
      case MAJOR.negative:
        return -1 - argument;
      case MAJOR.bytes:
        return this.#slice(argument).slice();
      case MAJOR.text:
        return this.#text(argument);
      case MAJOR.array:
        return this.#array(argument, depth);
      case MAJOR.map:
        return this.#map(argument, depth);
      default:
        return this.#tagged(argument);
    }
  }

  #simple(info: number): CborValue {
    switch (info) {
      case 20:
        return false;
      case 21:
        return true;
      case 22:
        return null;
      case 26: {
        const at = this.#advance(4);
        return this.#view.getFloat32(at);
      }
      case 27: {
        const at = this.#advance(8);
        return this.#view.getFloat64(at);
      }
      case 31:
        return refuse("cbor_indefinite_length", "a break outside a definite length");
      default:
        return refuse("cbor_malformed", `simple value ${info} is not in the subset`);
    }
  }

  #argument(info: number): number {
    if (info < 24) return info;
    switch (info) {
      case 24:
        return this.#take(1);
      case 25:
        return this.#view.getUint16(this.#advance(2));
      case 26:
        return this.#view.getUint32(this.#advance(4));
      case 27: {
        const big = this.#view.getBigUint64(this.#advance(8));
        if (big > BigInt(Number.MAX_SAFE_INTEGER)) refuse("cbor_malformed", "an integer of 2^53 or more");
        return Number(big);
      }
      case 31:
        return refuse("cbor_indefinite_length", "an indefinite length");
      default:
        return refuse("cbor_malformed", `reserved additional information ${info}`);
    }
  }

  #text(length: number): string {
    const bytes = this.#slice(length);
    try {
      return textDecoder.decode(bytes);
    } catch (cause) {
      throw new FieldloopError("cbor_malformed", "Decode CBOR: text is not UTF-8", { cause });
    }
  }

  #array(length: number, depth: number): CborValue[] {
    // Each item takes a byte at least: a claim beyond what is left is refused before anything is allocated.
    if (length > this.#bytes.length - this.at) refuse("cbor_truncated", `an array claims ${length} items`);
    const items: CborValue[] = [];
    for (let index = 0; index < length; index++) items.push(this.value(depth + 1));
    return items;
  }

  #map(length: number, depth: number): CborValue {
    if (length > this.#bytes.length - this.at) refuse("cbor_truncated", `a map claims ${length} entries`);
    const map: Record<string, CborValue> = Object.create(null) as Record<string, CborValue>;
    for (let index = 0; index < length; index++) {
      const key = this.value(depth + 1);
      if (typeof key !== "string") refuse("cbor_key_type", "a map key is not text");
      if (key in map) refuse("cbor_duplicate_key", `key ${JSON.stringify(key.slice(0, 40))} appears twice`);
      map[key] = this.value(depth + 1);
    }
    return map;
  }

  #tagged(tag: number): CborTypedArray {
    const form = TYPED_ARRAYS.find((candidate) => candidate.tag === tag);
    if (!form && tag !== 64) refuse("cbor_tag_refused", `tag ${tag}`);
    const lead = this.#take(1);
    if (lead >> 5 !== MAJOR.bytes) refuse("cbor_malformed", `tag ${tag} is not on a byte string`);
    const bytes = this.#slice(this.#argument(lead & 0x1f)).slice();
    if (!form) return bytes;
    const size = form.make.BYTES_PER_ELEMENT;
    if (bytes.length % size !== 0) refuse("cbor_malformed", `${bytes.length} bytes under tag ${tag}`);
    return new form.make(bytes.buffer as ArrayBuffer, 0, bytes.length / size);
  }

  #take(count: 1): number {
    return this.#bytes[this.#advance(count)]!;
  }

  #slice(length: number): Uint8Array {
    const at = this.#advance(length);
    return this.#bytes.subarray(at, at + length);
  }

  #advance(count: number): number {
    const at = this.at;
    if (count > this.#bytes.length - at) {
      refuse("cbor_truncated", `wanted ${count} bytes at ${at}, have ${this.#bytes.length - at}`);
    }
    this.at = at + count;
    return at;
  }
}

interface Utf8Encoder {
  encode(text: string): Uint8Array;
}
interface Utf8Decoder {
  decode(bytes: Uint8Array): string;
}
/** Every JavaScript platform has them; named here so that this package needs neither DOM nor Node types. */
const platform = globalThis as unknown as {
  TextEncoder: new () => Utf8Encoder;
  TextDecoder: new (label: string, options: { fatal: boolean }) => Utf8Decoder;
};
const textEncoder = new platform.TextEncoder();
const textDecoder = new platform.TextDecoder("utf-8", { fatal: true });

function refuse(code: ErrorCode, what: string): never {
  throw new FieldloopError(code, `Decode CBOR: ${what}`);
}
