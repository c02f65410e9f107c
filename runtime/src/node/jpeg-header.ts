/** Size of a JPEG whose picture needs no turning. */
export interface JpegSize {
  readonly width: number;
  readonly height: number;
}

/** Bytes that are searched for the frame header; thumbnails and profiles before it are rarely larger. */
const HEADER_BYTES_MAX = 256 * 1024;

const MARKER = 0xff;
const START_OF_SCAN = 0xda;
const END_OF_IMAGE = 0xd9;
/** APP1, where EXIF says how to turn the picture. */
const APP1 = 0xe1;
/** SOF0 … SOF15 are frame headers, but for these three (DHT, JPG, DAC): ITU-T T.81, table B.1. */
const NOT_FRAMES: ReadonlySet<number> = new Set([0xc4, 0xc8, 0xcc]);

/**
 * The size of a JPEG by its frame header (ITU-T T.81, B.2.2), as cameras send them by the thousand: asking the decoder
 * costs a tenth of the decoding.
 * @returns undefined where the file has EXIF or XMP, is no plain JPEG or is broken: let the decoder say what it is
 */
export function jpegSize(bytes: Uint8Array): JpegSize | undefined {
  const end = Math.min(bytes.length, HEADER_BYTES_MAX);
  let at = 2;
  while (at + 9 <= end) {
    if (bytes[at] !== MARKER) return undefined;
    const marker = bytes[at + 1]!;
    if (marker === MARKER) {
      // Fill bytes may stand before any marker.
      at++;
      continue;
    }
    if (marker === START_OF_SCAN || marker === END_OF_IMAGE || marker === APP1) return undefined;
    if (marker >= 0xc0 && marker <= 0xcf && !NOT_FRAMES.has(marker)) {
      const height = (bytes[at + 5]! << 8) | bytes[at + 6]!;
      const width = (bytes[at + 7]! << 8) | bytes[at + 8]!;
      return width > 0 && height > 0 ? { width, height } : undefined;
    }
    at += 2 + ((bytes[at + 2]! << 8) | bytes[at + 3]!);
  }
  return undefined;
}
