/**
 * The loops from 8-bit pixels to tensors. Every pixel of every frame passes here, so the common case (colour to float32
 * planes) has a loop of its own that sees one array type only and reads four pixels as three words; the rest shares one.
 */

export type PixelArray =
  | Float32Array
  | Float64Array
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Int32Array
  | Uint32Array;

const LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

/** Luma of ITU-R BT.601 in 8-bit fixed point, as decoders of JPEG use it. */
const LUMA = { red: 77, green: 150, blue: 29 } as const;

/** Whether {@link floatPlanes} can read these pixels. */
export function isWordAligned(pixels: Uint8Array): boolean {
  return LITTLE_ENDIAN && pixels.byteOffset % 4 === 0;
}

/**
 * Red, green, blue bytes to three planes of floats, each through its table. `pixels` must be {@link isWordAligned}.
 * @returns the mean byte of every fourth pixel: brightness needs no more
 */
export function floatPlanes(
  pixels: Uint8Array,
  reds: Float32Array,
  greens: Float32Array,
  blues: Float32Array,
  redTable: Float32Array,
  greenTable: Float32Array,
  blueTable: Float32Array,
): number {
  const area = reds.length;
  const words = new Uint32Array(pixels.buffer, pixels.byteOffset, pixels.length >> 2);
  let sum = 0;
  let count = 0;
  let at = 0;
  for (let word = 0; at + 4 <= area; at += 4, word += 3) {
    const a = words[word]!;
    const b = words[word + 1]!;
    const c = words[word + 2]!;
    const red = a & 255;
    const green = (a >>> 8) & 255;
    const blue = (a >>> 16) & 255;
    sum += red + green + blue;
    count += 3;
    reds[at] = redTable[red]!;
    reds[at + 1] = redTable[a >>> 24]!;
    reds[at + 2] = redTable[(b >>> 16) & 255]!;
    reds[at + 3] = redTable[(c >>> 8) & 255]!;
    greens[at] = greenTable[green]!;
    greens[at + 1] = greenTable[b & 255]!;
    greens[at + 2] = greenTable[b >>> 24]!;
    greens[at + 3] = greenTable[(c >>> 16) & 255]!;
    blues[at] = blueTable[blue]!;
    blues[at + 1] = blueTable[(b >>> 8) & 255]!;
    blues[at + 2] = blueTable[c & 255]!;
    blues[at + 3] = blueTable[c >>> 24]!;
  }
  for (; at < area; at++) {
    const red = pixels[3 * at]!;
    const green = pixels[3 * at + 1]!;
    const blue = pixels[3 * at + 2]!;
    sum += red + green + blue;
    count += 3;
    reds[at] = redTable[red]!;
    greens[at] = greenTable[green]!;
    blues[at] = blueTable[blue]!;
  }
  return sum / count;
}

/** Any colour, layout and element type: channel `c` of pixel `p` goes to `c · plane + p · step`. @returns the mean byte */
export function anyColour(
  pixels: Uint8Array,
  channels: 1 | 3,
  isReversed: boolean,
  into: PixelArray,
  tables: readonly PixelArray[],
  plane: number,
  step: number,
): number {
  const [first, second, third] = tables as [PixelArray, PixelArray, PixelArray];
  const middle = channels === 1 ? 0 : 1;
  const last = channels === 1 ? 0 : 2;
  const firstFrom = isReversed ? last : 0;
  const thirdFrom = isReversed ? 0 : last;
  let sum = 0;
  for (let from = 0, at = 0; from < pixels.length; from += channels, at += step) {
    const a = pixels[from + firstFrom]!;
    const b = pixels[from + middle]!;
    const c = pixels[from + thirdFrom]!;
    sum += a + b + c;
    into[at] = first[a]!;
    into[at + plane] = second[b]!;
    into[at + 2 * plane] = third[c]!;
  }
  return sum / ((pixels.length / channels) * 3);
}

/** One plane, from gray bytes or from the luma of coloured ones. @returns the mean byte */
export function grayPlane(pixels: Uint8Array, channels: 1 | 3, into: PixelArray, table: PixelArray): number {
  let sum = 0;
  if (channels === 1) {
    for (let at = 0; at < pixels.length; at++) {
      const value = pixels[at]!;
      sum += value;
      into[at] = table[value]!;
    }
    return sum / pixels.length;
  }
  for (let at = 0, from = 0; from < pixels.length; at++, from += 3) {
    const red = pixels[from]! * LUMA.red;
    const value = (red + pixels[from + 1]! * LUMA.green + pixels[from + 2]! * LUMA.blue + 128) >> 8;
    sum += value;
    into[at] = table[value]!;
  }
  return (3 * sum) / pixels.length;
}
