import type { FileHandle } from "node:fs/promises";

/** Where the samples of a WAV file lie and how they are written (RIFF, `fmt ` and `data` chunks). */
export interface WavFormat {
  readonly hz: number;
  readonly channels: number;
  readonly encoding: "u8" | "s16" | "s24" | "s32" | "f32" | "f64";
  readonly dataOffset: number;
  /** Up to the end of the file where its writer did not come to say it. */
  readonly dataBytes: number;
}

const FORMAT_PCM = 1;
const FORMAT_FLOAT = 3;
const FORMAT_EXTENSIBLE = 0xfffe;
const CHUNKS_MAX = 64;
/** Four times the fastest converters; a header that claims more would only claim memory. */
const HZ_MAX = 768_000;
const BYTES: Readonly<Record<WavFormat["encoding"], number>> = {
  u8: 1,
  s16: 2,
  s24: 3,
  s32: 4,
  f32: 4,
  f64: 8,
};

/** Bytes of one sample of all channels. */
export function wavBlockBytes(format: WavFormat): number {
  return BYTES[format.encoding] * format.channels;
}

/** Undefined for what is no WAV file, or one that holds something else than plain samples: that is for ffmpeg. */
export async function readWavFormat(handle: FileHandle): Promise<WavFormat | undefined> {
  const { size } = await handle.stat();
  const head = Buffer.alloc(40);
  const read = async (at: number, count: number): Promise<boolean> =>
    (await handle.read(head, 0, count, at)).bytesRead === count;
  if (
    !(await read(0, 12)) ||
    head.toString("latin1", 0, 4) !== "RIFF" ||
    head.toString("latin1", 8, 12) !== "WAVE"
  ) {
    return undefined;
  }
  let format: Omit<WavFormat, "dataOffset" | "dataBytes"> | undefined;
  let at = 12;
  for (let chunk = 0; chunk < CHUNKS_MAX && (await read(at, 8)); chunk++) {
    const id = head.toString("latin1", 0, 4);
    const length = head.readUInt32LE(4);
    if (id === "data") {
      if (!format) return undefined;
      // A recorder that was cut off leaves 0 or all ones.
      const told = length === 0 || length === 0xffff_ffff ? size : length;
      return { ...format, dataOffset: at + 8, dataBytes: Math.min(told, size - at - 8) };
    }
    if (id === "fmt ") {
      if (length < 16 || !(await read(at + 8, Math.min(length, 40)))) return undefined;
      format = readFormatChunk(head, length);
      if (!format) return undefined;
    }
    at += 8 + length + (length % 2);
  }
  return undefined;
}

function readFormatChunk(
  chunk: Buffer,
  length: number,
): Omit<WavFormat, "dataOffset" | "dataBytes"> | undefined {
  const tag = chunk.readUInt16LE(0);
  // The sub-format begins with the tag that would stand in front.
  const kind = tag === FORMAT_EXTENSIBLE && length >= 26 ? chunk.readUInt16LE(24) : tag;
  const channels = chunk.readUInt16LE(2);
  const hz = chunk.readUInt32LE(4);
  const bits = chunk.readUInt16LE(14);
  const encoding = encodingOf(kind, bits);
  if (encoding === undefined || channels < 1 || channels > 64 || hz < 1 || hz > HZ_MAX) return undefined;
  if (chunk.readUInt16LE(12) !== BYTES[encoding] * channels) return undefined;
  return { hz, channels, encoding };
}

function encodingOf(kind: number, bits: number): WavFormat["encoding"] | undefined {
  if (kind === FORMAT_FLOAT) return bits === 32 ? "f32" : bits === 64 ? "f64" : undefined;
  if (kind !== FORMAT_PCM) return undefined;
  return ({ 8: "u8", 16: "s16", 24: "s24", 32: "s32" } as const)[bits as 8 | 16 | 24 | 32];
}

/** Whole samples as −1..1, `channels` interleaved: mixed to one where one is wanted, the same twice where two are. */
export function decodeWav(bytes: Buffer, format: WavFormat, channels: number): Float32Array {
  const size = BYTES[format.encoding];
  const count = Math.floor(bytes.length / (size * format.channels));
  const read = readerOf(format.encoding);
  const samples = new Float32Array(count * channels);
  for (let at = 0; at < count; at++) {
    const from = at * size * format.channels;
    if (channels === format.channels) {
      for (let channel = 0; channel < channels; channel++) {
        samples[at * channels + channel] = read(bytes, from + channel * size);
      }
    } else {
      let sum = 0;
      for (let channel = 0; channel < format.channels; channel++) sum += read(bytes, from + channel * size);
      samples.fill(sum / format.channels, at * channels, (at + 1) * channels);
    }
  }
  return samples;
}

function readerOf(encoding: WavFormat["encoding"]): (bytes: Buffer, at: number) => number {
  switch (encoding) {
    case "u8":
      return (bytes, at) => (bytes[at]! - 128) / 128;
    case "s16":
      return (bytes, at) => bytes.readInt16LE(at) / 32_768;
    case "s24":
      return (bytes, at) => bytes.readIntLE(at, 3) / 8_388_608;
    case "s32":
      return (bytes, at) => bytes.readInt32LE(at) / 2_147_483_648;
    case "f32":
      return (bytes, at) => bytes.readFloatLE(at);
    case "f64":
      return (bytes, at) => bytes.readDoubleLE(at);
  }
}
