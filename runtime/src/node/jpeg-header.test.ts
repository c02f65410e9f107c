import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { jpegSize } from "./jpeg-header.js";

const picture = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: "red" } });

describe("size of a JPEG by its header", () => {
  it.each([
    ["baseline", {}],
    ["progressive", { progressive: true }],
    ["optimized", { mozjpeg: true }],
  ])("%s", async (_, options) => {
    const bytes = await picture(321, 17).jpeg(options).toBuffer();
    expect(jpegSize(bytes)).toEqual({ width: 321, height: 17 });
  });
  it("is left to the decoder where EXIF may turn the picture", async () => {
    expect(jpegSize(await picture(8, 4).withMetadata({ orientation: 6 }).jpeg().toBuffer())).toBeUndefined();
  });
  it("is unknown of anything cut, broken or empty, wherever the break is", async () => {
    const bytes = await picture(8, 4).jpeg().toBuffer();
    for (let length = 0; length < bytes.length; length++) {
      const size = jpegSize(bytes.subarray(0, length));
      if (size !== undefined) expect(size).toEqual({ width: 8, height: 4 });
    }
    expect(jpegSize(new Uint8Array(64))).toBeUndefined();
    // A segment that claims no length would be read for ever.
    expect(jpegSize(Uint8Array.of(0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0))).toBeUndefined();
    const zero = Buffer.from(bytes);
    const frame = zero.indexOf(Buffer.of(0xff, 0xc0));
    zero.fill(0, frame + 5, frame + 9);
    expect(jpegSize(zero)).toBeUndefined();
  });
});
