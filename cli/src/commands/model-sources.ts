import { FieldloopError, type Affine, type Manifest, type WindowInput } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import type { SourceFrame } from "@fieldloop/device-agent";

const SOUND_NAME = /\.(?:wav|flac|mp3|ogg|opus|m4a)$/i;
const VIDEO_NAME = /\.(?:mp4|mkv|avi|mov|webm|m4v|ts)$/i;
const NDJSON_NAME = /\.(?:ndjson|jsonl)$/i;
const CSV_NAME = /\.csv$/i;
/** `kind:rest`; one letter would be the drive of a Windows path. */
const SPEC = /^[a-z][a-z-]+:/;

/** The source that an input names: a spec as `fieldloop agent --source` takes it, or a file of sound, video or rows. */
export function sourceText(input: string, isFile: boolean, manifest: Manifest): string | undefined {
  const file = (kind: string, options: string): string =>
    `${kind}:file://${encodeURIComponent(input)}${options}`;
  if (!isFile) return SPEC.test(input) ? input : undefined;
  if (SOUND_NAME.test(input)) return file("audio", "?pace=none");
  if (VIDEO_NAME.test(input)) return file("video", "?pace=none");
  if (NDJSON_NAME.test(input)) return file("ndjson", "");
  if (CSV_NAME.test(input) && manifest.inputs.some(({ kind }) => kind === "table")) return file("csv", "");
  return undefined;
}

/** The frames that the source gives to an agent with this model. */
export async function* sourceFrames(text: string, manifest: Manifest): AsyncGenerator<SourceFrame> {
  // Loaded here, so that other inputs do not pay for it.
  const { parseSourceSpec, readSource } = await import("@fieldloop/device-agent");
  const window = manifest.inputs.find((input) => input.kind === "window");
  const table = manifest.inputs.find((input) => input.kind === "table");
  yield* readSource(parseSourceSpec(text), {
    window: () => window,
    columns: () => table?.columns.map(({ name }) => name),
  });
}

/** `tensor:PATH?scale=0.1&zero=-128&type=int8` */
export interface TensorFileSpec {
  readonly path: string;
  /** What 8-bit codes stand for; by default what the manifest says of the input. */
  readonly quantization?: Affine;
  readonly type?: "float32" | "int8" | "uint8";
}

const TENSOR_FORM = "wanted tensor:PATH?type=float32|int8|uint8&scale=NUMBER&zero=INTEGER";

/** Undefined for what is none. @throws FieldloopError `invalid_argument` */
export function tensorFileSpec(input: string, isFile: boolean): TensorFileSpec | undefined {
  if (isFile) return /\.bin$/i.test(input) ? { path: input } : undefined;
  const match = /^tensor:([^?]+)(?:\?(.*))?$/s.exec(input);
  if (!match) return undefined;
  const refuse = (): FieldloopError =>
    new FieldloopError("invalid_argument", `Read input "${input.slice(0, 200)}": ${TENSOR_FORM}`);
  const { type, scale, zero = "0", ...others } = Object.fromEntries(new URLSearchParams(match[2] ?? ""));
  if (type !== undefined && type !== "float32" && type !== "int8" && type !== "uint8") throw refuse();
  const affine = { scale: Number(scale ?? 1), zeroPoint: Number(zero) };
  if (Object.keys(others).length > 0 || !(affine.scale > 0) || !Number.isInteger(affine.zeroPoint))
    throw refuse();
  return {
    path: match[1]!,
    ...(type === undefined ? {} : { type }),
    ...(scale === undefined ? {} : { quantization: affine }),
  };
}

/**
 * Windows one after the other as raw values: float32 little-endian, or 8-bit codes where the file is a quarter of that.
 * @throws FieldloopError `window_invalid` where the size does not fit, or nothing says what the codes stand for
 */
export function* tensorFileFrames(spec: TensorFileSpec, bytes: Buffer, manifest: Manifest): Generator<Frame> {
  const input = manifest.inputs.find((candidate) => candidate.kind === "window");
  if (input === undefined) {
    throw new FieldloopError(
      "window_invalid",
      `Read "${spec.path}": the model takes ${manifest.inputs[0]?.kind} input, no windows`,
    );
  }
  const size = input.length * input.channels;
  const type = spec.type ?? typeFor(bytes.length, size, input);
  const itemBytes = type === "float32" ? size * 4 : size;
  if (bytes.length === 0 || bytes.length % itemBytes !== 0) {
    throw new FieldloopError(
      "window_invalid",
      `Read "${spec.path}": ${bytes.length} bytes, a window of ${type} has ${itemBytes}`,
    );
  }
  const affine = type === "float32" ? undefined : (spec.quantization ?? input.quantization);
  if (type !== "float32" && affine === undefined) {
    throw new FieldloopError(
      "window_invalid",
      `Read "${spec.path}": nothing says what its ${type} codes stand for; ${TENSOR_FORM}`,
    );
  }
  for (let from = 0; from < bytes.length; from += itemBytes) {
    const samples = valuesOf(bytes.subarray(from, from + itemBytes), type, affine);
    yield { kind: "window", samples };
  }
}

function typeFor(length: number, size: number, input: WindowInput): "float32" | "int8" | "uint8" {
  if (length % (size * 4) === 0 && input.elementType !== "int8" && input.elementType !== "uint8")
    return "float32";
  return input.elementType === "uint8" ? "uint8" : "int8";
}

function valuesOf(
  bytes: Buffer,
  type: "float32" | "int8" | "uint8",
  affine: Affine | undefined,
): Float32Array {
  if (type === "float32" || affine === undefined) {
    return Float32Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readFloatLE(at * 4));
  }
  const { scale, zeroPoint } = affine;
  const codes = type === "int8" ? new Int8Array(bytes) : bytes;
  return Float32Array.from(codes, (code) => (code - zeroPoint) * scale);
}
