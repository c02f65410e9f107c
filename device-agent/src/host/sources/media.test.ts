import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import type { EncodedFrame, PixelFrame } from "@fieldloop/runtime";
import { bareDecode } from "@fieldloop/runtime/node";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseSourceSpec, sourceName } from "../../source-spec.js";
import { until } from "../../testing/fleet.test.kit.js";
import { scratchFolder } from "../../testing/package.test.kit.js";
import { audioPlan } from "./audio.js";
import { type FfmpegPlan, runFfmpeg } from "./ffmpeg.js";
import { imagePlan, JPEG_OUTPUT } from "./images.js";
import { MultipartJpegReader } from "./multipart-jpeg.js";
import { TestCamera } from "./rtsp.test.kit.js";
import { hasProgram, SourceStage, windowsOf } from "./sources.test.kit.js";
import { readWavFormat } from "./wav.js";

const hasFfmpeg = hasProgram("ffmpeg", ["-version"], "cameras, network cameras and sound");

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let stage: SourceStage;
beforeEach(async () => {
  folder = await scratchFolder();
  stage = new SourceStage();
});
afterEach(async () => {
  await stage.close();
  await folder.remove();
});

const planOf = (text: string): FfmpegPlan =>
  imagePlan(parseSourceSpec(text) as Parameters<typeof imagePlan>[0]);

describe("camera", () => {
  it("asks V4L2 for what was said, and passes JPEG through", () => {
    const jpeg = planOf("camera:/dev/video2?fps=30&width=1280&height=720").arguments.join(" ");
    expect(jpeg).toContain("-f v4l2 -input_format mjpeg -framerate 30 -video_size 1280x720 -i /dev/video2");
    expect(jpeg).toContain("-c:v copy");
    const yuyv = planOf("camera:2?format=yuyv").arguments.join(" ");
    expect(yuyv).toContain("-input_format yuyv422 -framerate 15 -video_size 640x480 -i /dev/video2");
    expect(yuyv).toContain("-c:v ppm -pix_fmt rgb24");
  });

  it("says that there is no such device, and goes on trying", async () => {
    await stage.open("camera:/dev/video99");
    await until(() => stage.codes.length > 1, "it was tried twice");
    expect(stage.troubles[0]?.code).toBe("source_failed");
    expect(stage.troubles[0]?.message).toContain('Open camera "/dev/video99": no such device');
  });

  it.skipIf(!hasFfmpeg)("says that a device is no camera", async () => {
    await stage.open("camera:/dev/null");
    await until(() => stage.codes.length > 0, "the trouble is told");
    expect(stage.troubles[0]?.message).toMatch(/Open camera "\/dev\/null": .*(no camera|no such device)/);
  });

  it.skipIf(!hasFfmpeg)("cuts the JPEG files out of what ffmpeg writes, each as it is", async () => {
    const reader = new MultipartJpegReader();
    const frames: Uint8Array[] = [];
    const plan: FfmpegPlan = {
      ...{ action: "Open test", live: false },
      arguments: [
        // What a camera without Huffman tables in its frames gives is close to ffmpeg's own MJPEG in AVI.
        ...["-nostdin", "-f", "lavfi", "-i", "testsrc=size=96x64:rate=20:duration=1", "-c:v", "mjpeg"],
        ...JPEG_OUTPUT.filter((word) => word !== "copy" && word !== "-c:v"),
      ],
    };
    await runFfmpeg(plan, new AbortController().signal, async (chunk) => {
      frames.push(...reader.push(chunk));
      await Promise.resolve();
    });
    expect(frames).toHaveLength(20);
    for (const frame of [frames[0]!, frames[19]!]) {
      expect([...frame.subarray(0, 2), ...frame.subarray(-2)]).toEqual([0xff, 0xd8, 0xff, 0xd9]);
      expect((await bareDecode(frame, 96, 64)).length).toBe(96 * 64 * 3);
    }
  });

  it("finds every JPEG whatever the pieces are", () => {
    const part = (bytes: number[]): Buffer =>
      Buffer.concat([
        Buffer.from(`--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: ${bytes.length}\r\n\r\n`),
        Buffer.from(bytes),
        Buffer.from("\r\n"),
      ]);
    // A body may hold what looks like a border.
    const bodies = [[1, 2, 3], [...Buffer.from("\r\n--ffmpeg\r\n")], [9]];
    const stream = Buffer.concat(bodies.map(part));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (sizes) => {
        const reader = new MultipartJpegReader();
        const found: number[][] = [];
        for (let at = 0, step = 0; at < stream.length; step++) {
          const size = sizes[step % sizes.length]!;
          found.push(...reader.push(stream.subarray(at, at + size)).map((frame) => [...frame]));
          at += size;
        }
        expect(found).toEqual(bodies);
      }),
    );
    expect(() => new MultipartJpegReader().push(Buffer.alloc(300, "x"))).toThrow("no frame header");
    expect(() =>
      new MultipartJpegReader().push(Buffer.from("--ffmpeg\r\nContent-length: 999999999\r\n\r\n")),
    ).toThrow("999999999");
  });
});

describe.skipIf(!hasFfmpeg)("runFfmpeg", () => {
  const never = new AbortController().signal;
  const run = (plan: Partial<FfmpegPlan>, signal = never): Promise<void> =>
    runFfmpeg({ action: 'Open "x"', live: false, arguments: [], ...plan }, signal, () => Promise.resolve());

  it("names the cause, without any secret", async () => {
    const url = "rtsp://admin:s3cr%40t@127.0.0.1:9/live";
    await expect(
      run({ arguments: ["-nostdin", "-i", url, "-f", "null", "-"], secrets: ["s3cr@t", "s3cr%40t"] }),
    ).rejects.toThrow(/nobody answers there/);
    const error: unknown = await run({ arguments: ["-nostdin", "-i", url, "-f", "null", "-"] }).catch(
      (e: unknown) => e,
    );
    expect(error).toBeInstanceOf(FieldloopError);
    expect((error as FieldloopError).message).not.toContain("s3cr");
  });

  it("ends at once when it is told to, and when its reader fails", async () => {
    const endless = [
      "-nostdin",
      "-re",
      "-f",
      "lavfi",
      "-i",
      "testsrc=size=64x48:rate=5",
      "-f",
      "rawvideo",
      "pipe:1",
    ];
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 300);
    await run({ arguments: endless, live: true }, stop.signal);
    await expect(
      runFfmpeg({ action: "x", live: true, arguments: endless }, never, () =>
        Promise.reject(new Error("full")),
      ),
    ).rejects.toThrow("full");
  });

  it("ends what stays silent", async () => {
    const server = createServer((socket) => socket.on("error", () => undefined));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await expect(
      run({
        ...{ live: true, quietMs: 400 },
        arguments: ["-nostdin", "-f", "mpegts", "-i", `tcp://127.0.0.1:${port}`, "-f", "rawvideo", "pipe:1"],
      }),
    ).rejects.toThrow("nothing came for 400 ms");
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
});

describe("rtsp", () => {
  it("keeps the camera's own options, and tells no login", () => {
    const spec = parseSourceSpec(
      "rtsp:rtsp://admin:p%40ss@10.0.0.9:554/live?channel=1&transport=udp&key=k&fps=5",
    );
    expect(spec).toMatchObject({
      url: "rtsp://10.0.0.9:554/live?channel=1&key=k",
      transport: "udp",
      fps: 5,
      username: "admin",
      password: "p@ss",
    });
    expect(sourceName(spec)).toBe("rtsp:rtsp://10.0.0.9:554/live");
    expect(() => parseSourceSpec("rtsp:rtsp://admin:pass@h/live?fps=0")).toThrow(/^(?!.*pass@)/);
  });

  it.each(["?a='", "?a=\n", "?a=b c", '?a="', "?a=\\"])(
    "takes no URL that would be a command: %j",
    (query) => {
      expect(() => parseSourceSpec(`rtsp://u:p@10.0.0.9/live${query}`)).toThrow(/white space or quotes/);
    },
  );

  it("has no key of the camera's own options in the command line", () => {
    const spec = parseSourceSpec("rtsp://10.0.0.9/live?key=s3cret&fps=5");
    const plan = imagePlan(spec as Parameters<typeof imagePlan>[0]);
    expect(plan.arguments.join(" ")).not.toContain("s3cret");
    expect(plan.input).toContain("file 'rtsp://10.0.0.9/live?key=s3cret'");
  });

  it("has no password in the command line", () => {
    const spec = parseSourceSpec("rtsp://admin:p%27ss@10.0.0.9/live");
    expect(spec.kind).toBe("rtsp");
    const plan = imagePlan(spec as Parameters<typeof imagePlan>[0], { username: "admin", password: "p'ss" });
    expect(plan.arguments.join(" ")).not.toContain("ss@");
    expect(plan.input).toContain("file 'rtsp://admin:p%27ss@10.0.0.9/live'");
  });

  it.skipIf(!hasFfmpeg)(
    "plays a camera, and plays it again after the connection was cut",
    async () => {
      const camera = new TestCamera(folder.path);
      try {
        await camera.start();
        await stage.open(`rtsp://127.0.0.1:${camera.port}/live?width=32`);
        const [first] = await stage.take(5);
        expect(first!.frame).toMatchObject({ kind: "pixels", width: 32, height: 24, channels: 3 });
        camera.cut();
        await until(() => stage.codes.includes("source_failed"), "the trouble is told");
        await stage.take(3);
        expect(stage.codes.at(-1)).toBeUndefined();
        expect(stage.source.counts!()).toMatchObject({ restarts: 1 });
      } finally {
        await stage.close();
        await camera.stop();
      }
    },
    40_000,
  );

  it.skipIf(!hasFfmpeg)(
    "logs in from a file, and says when that is refused",
    async () => {
      const camera = new TestCamera(folder.path, "viewer:s3cr@t/x");
      try {
        await camera.start();
        const login = join(folder.path, "camera.login");
        writeFileSync(login, "viewer:wrong-one\n");
        await stage.open(`rtsp://127.0.0.1:${camera.port}/live?login=${login}`);
        await until(() => stage.codes.includes("source_failed"), "the trouble is told");
        expect(stage.troubles[0]!.message).toContain("the user or password is not right");
        expect(stage.troubles[0]!.message).not.toContain("wrong-one");
        writeFileSync(login, "viewer:s3cr@t/x\n");
        await stage.take(2);
      } finally {
        await stage.close();
        await camera.stop();
      }
    },
    40_000,
  );
});

/** PCM, 16 bits. */
function writeWav(path: string, samples: readonly number[], hz: number, channels = 1): void {
  const head = Buffer.alloc(44);
  head.write("RIFF", 0, "latin1");
  head.writeUInt32LE(36 + samples.length * 2, 4);
  head.write("WAVEfmt ", 8, "latin1");
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(channels, 22);
  head.writeUInt32LE(hz, 24);
  head.writeUInt32LE(hz * channels * 2, 28);
  head.writeUInt16LE(channels * 2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36, "latin1");
  head.writeUInt32LE(samples.length * 2, 40);
  writeFileSync(path, Buffer.concat([head, Buffer.from(Int16Array.from(samples).buffer)]));
}

describe("audio", () => {
  const tone = Array.from({ length: 4000 }, (_, at) => Math.round(20_000 * Math.sin(at / 7)));

  it("reads WAV by itself, in the windows that the model wants", async () => {
    const path = join(folder.path, "tone.wav");
    writeWav(path, tone, 8000);
    stage.window = { length: 512, hop: 256, channels: 1, sampleRateHz: 8000 };
    await stage.open(`audio:${path}?pace=none`);
    const frames = await stage.take(14);
    expect(frames.map(({ fresh }) => fresh === true).indexOf(true)).toBe(0);
    for (const [at, window] of windowsOf(frames).entries()) {
      const expected = tone.slice(at * 256, at * 256 + 512).map((value) => Math.fround(value / 32_768));
      expect(window).toEqual(expected);
    }
    expect(stage.queue.dropped).toBe(0);
  });

  it("mixes channels, and plays over and over", async () => {
    const path = join(folder.path, "stereo.wav");
    writeWav(path, [1000, 3000, -2000, 0, 8, 8, 0, 0], 8000, 2);
    await stage.open(`audio:${path}?pace=none&loop=1&length=2&channels=1`);
    const windows = windowsOf(await stage.take(3));
    expect(windows).toEqual(
      [
        [2000, -1000],
        [8, 0],
        [2000, -1000],
      ].map((window) => window.map((v) => v / 32_768)),
    );
  });

  it.skipIf(!hasFfmpeg)("reads everything else through ffmpeg, at the model's rate", async () => {
    const path = join(folder.path, "tone.ogg");
    execFileSync("ffmpeg", [
      ...["-loglevel", "error", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=1"],
      ...["-c:a", "flac", "-f", "ogg", path],
    ]);
    stage.window = { length: 1600, hop: 1600, channels: 1, sampleRateHz: 16_000 };
    await stage.open(`audio:${path}?pace=none`);
    const windows = windowsOf(await stage.take(10));
    const signs = windows.flat().map(Math.sign);
    const crossings = signs.filter((sign, at) => at > 0 && sign > 0 && signs[at - 1]! <= 0).length;
    expect(crossings).toBeGreaterThan(435);
    expect(crossings).toBeLessThan(445);
  });

  it("does not take memory for a rate that no converter has", async () => {
    const path = join(folder.path, "fast.wav");
    writeWav(path, [1, 2, 3], 900_000);
    const handle = await open(path);
    expect(await readWavFormat(handle)).toBeUndefined();
    await handle.close();
  });

  it("asks a device for its rate and channels", () => {
    const spec = parseSourceSpec("audio:alsa:plughw:1,0?channels=2");
    const plan = audioPlan(spec as Parameters<typeof audioPlan>[0], { action: "x", hz: 16_000, channels: 2 });
    expect(plan.live).toBe(true);
    expect(plan.arguments.join(" ")).toContain("-f alsa -channels 2 -sample_rate 16000 -i plughw:1,0");
    expect(() => parseSourceSpec("audio:default?loop=1")).toThrow("own pace");
  });

  it.skipIf(!hasFfmpeg)("says what is wrong with a device and with a file", async () => {
    stage.window = { length: 16, hop: 16, channels: 1, sampleRateHz: 16_000 };
    await stage.open("audio:alsa:hw:77");
    await until(() => stage.codes.length > 0, "the trouble is told");
    expect(stage.troubles[0]?.message).toContain('Read sound "alsa:hw:77": ');
    await stage.source.close();
    const path = join(folder.path, "no.wav");
    writeFileSync(path, readFileSync(new URL(import.meta.url)));
    stage.troubles.length = 0;
    await stage.open(`audio:${path}`);
    await until(() => stage.codes.length > 0, "the trouble is told");
    expect(stage.troubles[0]?.message).toContain("nothing that ffmpeg can decode");
  });

  it("says so where nobody knows the length of a window", async () => {
    const path = join(folder.path, "tone.wav");
    writeWav(path, tone, 8000);
    await stage.open(`audio:${path}?pace=none`);
    await until(() => stage.codes.length > 0, "the trouble is told");
    expect(stage.troubles[0]?.message).toContain("length=");
  });
});

it("keeps frames of a video apart from each other", async () => {
  if (!hasFfmpeg) return;
  const path = join(folder.path, "a.mp4");
  execFileSync("ffmpeg", [
    ...[
      "-loglevel",
      "error",
      "-f",
      "lavfi",
      "-i",
      "testsrc=size=320x240:rate=10:duration=1",
      "-c:v",
      "mpeg4",
      path,
    ],
  ]);
  await stage.open(`video:${path}?pace=none&width=160`);
  const frames = (await stage.take(10)).map(({ frame }) => frame as PixelFrame | EncodedFrame);
  const pixels = frames.filter((frame) => frame.kind === "pixels");
  expect(pixels.map(({ width, height }) => `${width}x${height}`)).toEqual(
    Array.from({ length: 10 }, () => "160x120"),
  );
  expect(new Set(pixels.map(({ data }) => data.buffer)).size).toBe(10);
});
