/** An 8×8 gray image of one value. */
export async function pngOf(value: number): Promise<Uint8Array> {
  const { default: sharp } = await import("sharp");
  const raw = { width: 8, height: 8, channels: 1 } as const;
  return new Uint8Array(await sharp(new Uint8Array(64).fill(value), { raw }).png().toBuffer());
}
