import { deflateSync } from "node:zlib";
import { FieldloopError, LIMITS, type ImageInput } from "@fieldloop/protocol";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { imageSize, imageTypeOf, prepareImage } from "./image.js";
import { encodeJpeg } from "./jpeg.js";

const input = (more: Partial<ImageInput> = {}): ImageInput => ({
  kind: "image",
  name: "x",
  width: 8,
  height: 8,
  colour: "rgb",
  resize: "stretch",
  layout: "nchw",
  range: "byte",
  mean: [0],
  std: [1],
  elementType: "float32",
  ...more,
});

/** Left half red, right half blue. */
const halves = (width: number, height: number): Uint8Array =>
  Uint8Array.from({ length: width * height * 3 }, (_, at) => {
    const isLeft = Math.floor(at / 3) % width < width / 2;
    return at % 3 === (isLeft ? 0 : 2) ? 255 : 0;
  });
const picture = (width: number, height: number) =>
  sharp(halves(width, height), { raw: { width, height, channels: 3 } });
const pixelAt = (data: Uint8Array, x: number, y: number, width = 8): number[] => [
  ...data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3),
];

describe("good images", () => {
  it.each([
    ["PNG", async () => picture(16, 16).png().toBuffer()],
    ["JPEG", async () => picture(16, 16).jpeg({ quality: 100, chromaSubsampling: "4:4:4" }).toBuffer()],
    ["WebP", async () => picture(16, 16).webp({ lossless: true }).toBuffer()],
    ["16-bit PNG", async () => picture(16, 16).toColourspace("rgb16").png().toBuffer()],
    ["PNG with transparency", async () => picture(16, 16).ensureAlpha().png().toBuffer()],
    ["PNG with a palette", async () => picture(16, 16).png({ palette: true }).toBuffer()],
    ["CMYK JPEG", async () => picture(16, 16).toColourspace("cmyk").jpeg({ quality: 100 }).toBuffer()],
  ])("%s", async (name, make) => {
    const { data, channels } = await prepareImage(input(), { kind: "encoded", bytes: await make() });
    expect(channels).toBe(3);
    expect(data.length).toBe(8 * 8 * 3);
    // Printing inks cannot show a pure blue: what CMYK keeps is which colour leads.
    const tolerance = name === "CMYK JPEG" ? 130 : 8;
    const expectNear = (actual: number[], wanted: number[]): void => {
      wanted.forEach((value, at) => expect(Math.abs(actual[at]! - value)).toBeLessThan(tolerance));
      expect(actual.indexOf(Math.max(...actual))).toBe(wanted.indexOf(255));
    };
    expectNear(pixelAt(data, 1, 4), [255, 0, 0]);
    expectNear(pixelAt(data, 6, 4), [0, 0, 255]);
  });
  it("are turned upright by their EXIF tag", async () => {
    // Orientation 6: the file lies on its side; upright, red is above blue.
    const bytes = await picture(16, 8).withMetadata({ orientation: 6 }).jpeg({ quality: 100 }).toBuffer();
    expect(await imageSize(bytes)).toEqual({ width: 8, height: 16 });
    const { data } = await prepareImage(input(), { kind: "encoded", bytes });
    expect(pixelAt(data, 4, 0)[0]).toBeGreaterThan(200);
    expect(pixelAt(data, 4, 7)[2]).toBeGreaterThan(200);
  });
  it("are stored upright where they become a JPEG", async () => {
    const bytes = await picture(16, 8).withMetadata({ orientation: 6 }).webp({ lossless: true }).toBuffer();
    const jpeg = await encodeJpeg({ kind: "encoded", bytes }, 100);
    expect(await imageSize(jpeg)).toEqual(await imageSize(bytes));
    const { data } = await prepareImage(input(), { kind: "encoded", bytes: jpeg });
    expect(pixelAt(data, 4, 0)[0]).toBeGreaterThan(200);
    expect(pixelAt(data, 4, 7)[2]).toBeGreaterThan(200);
  });
  it("become gray where the model is", async () => {
    const bytes = await picture(16, 16).png().toBuffer();
    const { data, channels } = await prepareImage(input({ colour: "gray" }), { kind: "encoded", bytes });
    expect([channels, data.length]).toEqual([1, 64]);
  });
  it("are letterboxed with the fill and on the side that the input names", async () => {
    const white = new Uint8Array(4 * 2 * 3).fill(255);
    const frame = { kind: "pixels", data: white, width: 4, height: 2, channels: 3 } as const;
    const wanted = input({
      width: 4,
      height: 4,
      resize: "letterbox",
      letterbox: { fill: 114, align: "start" },
    });
    const { data, geometry } = await prepareImage(wanted, frame);
    const rows = [0, 1, 2, 3].map((row) => data[row * 4 * 3]);
    expect(rows).toEqual([255, 255, 114, 114]);
    expect(geometry).toMatchObject({ offsetX: -0, offsetY: -0, scaleY: 2 });
  });
  it("of raw pixels are resized alike, letterboxed in black and cropped", async () => {
    const frame = { kind: "pixels", data: halves(16, 8), width: 16, height: 8, channels: 3 } as const;
    const boxed = await prepareImage(input({ resize: "letterbox" }), frame);
    expect(boxed.geometry).toEqual({ scaleX: 1, scaleY: 2, offsetX: -0, offsetY: -0.5 });
    expect(pixelAt(boxed.data, 1, 0)).toEqual([0, 0, 0]);
    expect(pixelAt(boxed.data, 1, 4)).toEqual([255, 0, 0]);
    const cropped = await prepareImage(input({ resize: "crop" }), frame);
    expect(cropped.geometry).toEqual({ scaleX: 0.5, scaleY: 1, offsetX: 0.25, offsetY: 0 });
    expect(pixelAt(cropped.data, 0, 4)).toEqual([255, 0, 0]);
    expect(pixelAt(cropped.data, 7, 4)).toEqual([0, 0, 255]);
    const gray = {
      kind: "pixels",
      data: new Uint8Array(4).fill(9),
      width: 2,
      height: 2,
      channels: 1,
    } as const;
    expect(pixelAt((await prepareImage(input(), gray)).data, 3, 3)).toEqual([9, 9, 9]);
  });
  it("that shrink are averaged, so that a fine pattern becomes its mean", async () => {
    const data = Uint8Array.from({ length: 64 * 64 }, (_, at) => ((at + Math.floor(at / 64)) % 2) * 200);
    const frame = { kind: "pixels", data, width: 64, height: 64, channels: 1 } as const;
    const { data: small } = await prepareImage(input({ colour: "gray" }), frame);
    for (const value of small) expect(Math.abs(value - 100)).toBeLessThan(6);
  });
});

/** A PNG of one IDAT; `claim` overrides the header's size. */
function png(width: number, height: number, body: Uint8Array): Buffer {
  const chunk = (type: string, data: Uint8Array): Buffer => {
    const out = Buffer.alloc(12 + data.length);
    out.writeUInt32BE(data.length, 0);
    out.write(type, 4, "latin1");
    out.set(data, 8);
    out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
    return out;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 0, 0, 0, 0], 8);
  const signature = Buffer.from("89504e470d0a1a0a", "hex");
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(body)),
    chunk("IEND", new Uint8Array(0)),
  ]);
}

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

describe("hostile and broken images", () => {
  const good = async (): Promise<Buffer> => picture(64, 64).jpeg().toBuffer();
  const table: [string, string[], () => Promise<Uint8Array>][] = [
    ["nothing", ["image_type_refused"], async () => new Uint8Array(0)],
    ["text", ["image_type_refused"], async () => Buffer.from("hello, world")],
    ["zeros", ["image_type_refused"], async () => new Uint8Array(5000)],
    [
      "SVG",
      ["image_type_refused"],
      async () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    ],
    [
      "SVG that reads a file",
      ["image_type_refused"],
      async () =>
        Buffer.from(
          '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        ),
    ],
    ["GIF", ["image_type_refused"], async () => picture(8, 8).gif().toBuffer()],
    ["TIFF", ["image_type_refused"], async () => picture(8, 8).tiff().toBuffer()],
    ["AVIF", ["image_type_refused"], async () => picture(8, 8).avif({ effort: 0 }).toBuffer()],
    ["PDF", ["image_type_refused"], async () => Buffer.from("%PDF-1.4\n")],
    ["an animated WebP", ["image_type_refused"], animatedWebp],
    ["only a JPEG mark", ["image_undecodable"], async () => Buffer.from([0xff, 0xd8, 0xff])],
    ["only a PNG signature", ["image_undecodable"], async () => Buffer.from("89504e470d0a1a0a", "hex")],
    ["only a WebP header", ["image_undecodable"], async () => Buffer.from("RIFF\x04\0\0\0WEBP", "latin1")],
    [
      "a JPEG cut in half",
      ["image_undecodable"],
      async () => {
        const whole = await good();
        return whole.subarray(0, whole.length >> 1);
      },
    ],
    [
      "a PNG cut in half",
      ["image_undecodable"],
      async () => {
        const whole = await picture(64, 64).png().toBuffer();
        return whole.subarray(0, whole.length >> 1);
      },
    ],
    [
      "a JPEG mark before SVG",
      ["image_undecodable"],
      async () => Buffer.concat([Buffer.from([0xff, 0xd8, 0xff]), Buffer.from("<svg/>")]),
    ],
    [
      "a PNG that claims 60,000 × 60,000",
      ["image_too_large"],
      async () => png(60_000, 60_000, new Uint8Array(10)),
    ],
    [
      "a PNG that claims more than a 32-bit area",
      ["image_too_large", "image_undecodable"],
      async () => png(0x7fffffff, 0x7fffffff, new Uint8Array(10)),
    ],
    ["a PNG of no size", ["image_undecodable"], async () => png(0, 0, new Uint8Array(1))],
    [
      "a deflate bomb with a small claim",
      ["image_undecodable"],
      async () => png(8, 8, new Uint8Array(50_000_000)),
    ],
    ["more bytes than allowed", ["image_too_large"], async () => new Uint8Array(LIMITS.imageBytesMax + 1)],
    ["PNG that holds too few rows", ["image_undecodable"], async () => png(64, 64, new Uint8Array(65))],
  ];
  it.each(table)("%s", async (name, codes, make) => {
    const bytes = await make();
    const before = process.memoryUsage().rss;
    const error = await prepareImage(input(), { kind: "encoded", bytes }).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    // libpng reads no further than the claimed rows: more data behind them is no harm, and no error.
    if (name.startsWith("a deflate bomb") && error === undefined) {
      expect(process.memoryUsage().rss - before).toBeLessThan(100_000_000);
      return;
    }
    expect(error).toBeInstanceOf(FieldloopError);
    expect(codes).toContain((error as FieldloopError).code);
    expect((error as FieldloopError).message).not.toContain("\n");
  });
  it("random bytes after a valid start never throw anything but a coded error", async () => {
    const whole = await good();
    let state = 7;
    for (let round = 0; round < 60; round++) {
      const bytes = Uint8Array.from(whole);
      for (let change = 0; change < 8; change++) {
        state = (state * 48271) % 2147483647;
        bytes[4 + (state % (bytes.length - 4))] = state & 0xff;
      }
      await prepareImage(input(), { kind: "encoded", bytes }).catch((error: unknown) =>
        expect(error).toBeInstanceOf(FieldloopError),
      );
    }
  });
  it("raw pixels that contradict their size are refused", async () => {
    const wrong = { kind: "pixels", data: new Uint8Array(10), width: 4, height: 4, channels: 3 } as const;
    await expect(prepareImage(input(), wrong)).rejects.toMatchObject({ code: "image_undecodable" });
    await expect(
      prepareImage(input(), { ...wrong, width: 0, height: 0, data: new Uint8Array(0) }),
    ).rejects.toMatchObject({
      code: "image_undecodable",
    });
  });
});

it("types are told by the first bytes", () => {
  expect(imageTypeOf(Buffer.from([0xff, 0xd8, 0xff, 0xe0]))).toBe("image/jpeg");
  expect(imageTypeOf(Buffer.from("RIFF1234WEBPVP8 ", "latin1"))).toBe("image/webp");
  expect(imageTypeOf(Buffer.from("RIFF1234WAVE", "latin1"))).toBeUndefined();
});

async function animatedWebp(): Promise<Buffer> {
  const frames = Buffer.concat([halves(8, 8), new Uint8Array(8 * 8 * 3)]);
  return sharp(frames, { raw: { width: 8, height: 16, channels: 3, pageHeight: 8 } })
    .webp({ loop: 0, delay: [100, 100] })
    .toBuffer();
}
