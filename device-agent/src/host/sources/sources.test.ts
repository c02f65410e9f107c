import { request } from "node:http";
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FieldloopError } from "@fieldloop/protocol";
import type { PixelFrame, Prediction } from "@fieldloop/runtime";
import { encodeJpeg } from "@fieldloop/runtime/node";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../clock.js";
import { parseSourceSpec, type SourceSpec } from "../../source-spec.js";
import { until } from "../../testing/fleet.test.kit.js";
import { scratchFolder } from "../../testing/package.test.kit.js";
import { FrameQueue } from "../frame-queue.js";
import { Deliverer } from "./deliver.js";
import type { HttpSource } from "./http.js";
import { createSource } from "./open.js";
import { PpmReader } from "./ppm.js";
import type { Source, SourceContext, SourceFrame } from "./source.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let source: Source | undefined;
let queue: FrameQueue;
let troubles: (string | undefined)[];
let feedback: { n: number; label: string }[];
beforeEach(async () => {
  folder = await scratchFolder();
  queue = new FrameQueue(2);
  troubles = [];
  feedback = [];
});
afterEach(async () => {
  await source?.close();
  source = undefined;
  queue.close();
  await folder.remove();
});

function context(): SourceContext {
  return {
    sink: queue,
    clock: systemClock,
    onTrouble: (error?: FieldloopError) => troubles.push(error?.code),
    onFeedback: (items) => feedback.push(...items),
  };
}

async function open(text: string): Promise<Source> {
  source = createSource(parseSourceSpec(text), context(), 0);
  await source.open();
  return source;
}

async function take(count: number): Promise<SourceFrame[]> {
  const frames: SourceFrame[] = [];
  while (frames.length < count) frames.push((await queue.take())!);
  return frames;
}

const hasFfmpeg = (() => {
  try {
    execFileSync("ffmpeg", ["-version"], { stdio: "ignore" });
    return true;
  } catch {
    console.warn("skipped: video sources, because ffmpeg is not installed");
    return false;
  }
})();

describe("FrameQueue", () => {
  it("drops the oldest and counts it", async () => {
    const frame = (time: number): SourceFrame => ({
      frame: { kind: "window", samples: new Float32Array(1) },
      time,
    });
    for (let time = 1; time <= 5; time++) queue.offer(frame(time));
    expect(queue.dropped).toBe(3);
    expect((await take(2)).map(({ time }) => time)).toEqual([4, 5]);
    const waiting = queue.take();
    queue.offer(frame(6));
    expect((await waiting)?.time).toBe(6);
    expect(queue.seen).toBe(6);
    queue.close();
    expect(await queue.take()).toBeUndefined();
  });

  it("has more places for a while, and loses none of those that waited", async () => {
    const frame = (time: number): SourceFrame => ({
      frame: { kind: "window", samples: new Float32Array(1) },
      time,
    });
    queue.resize(6);
    for (let time = 1; time <= 6; time++) queue.offer(frame(time));
    queue.shrinkWhenDrained(2);
    for (let time = 7; time <= 10; time++) {
      await take(2);
      queue.offer(frame(time));
    }
    expect(queue.dropped).toBe(0);
    expect((await take(2)).map(({ time }) => time)).toEqual([9, 10]);
    for (let time = 11; time <= 13; time++) queue.offer(frame(time));
    expect(queue.dropped).toBe(1);
  });
});

describe("sources that wait", () => {
  it("lose nothing where several wait for one place", async () => {
    const { signal } = new AbortController();
    const deliver = async (stream: string): Promise<void> => {
      const deliverer = new Deliverer(context(), "wait");
      for (let n = 0; n < 10; n++) {
        await deliverer.deliver({ frame: { kind: "row", values: { n } }, time: n, stream }, signal);
      }
    };
    const names = ["a", "b", "c", "d"];
    const delivering = names.map(deliver);
    const frames: SourceFrame[] = [];
    while (frames.length < 40 && queue.dropped === 0) {
      frames.push(...(await take(1)));
      await nextTurn();
    }
    expect(queue.dropped).toBe(0);
    await Promise.all(delivering);
    for (const name of names) {
      const times = frames.filter(({ stream }) => stream === name).map(({ time }) => time);
      expect(times).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
  });
});

describe("folder", () => {
  it("gives images in order, again and again, and waits instead of dropping", async () => {
    for (const [index, name] of ["b.jpg", "a.png", "c.txt"].entries())
      writeFileSync(join(folder.path, name), Buffer.alloc(10, index));
    await open(`folder:${folder.path}?fps=200`);
    const frames = await take(5);
    expect(frames.map(({ frame }) => (frame.kind === "encoded" ? frame.bytes[0] : -1))).toEqual([
      1, 0, 1, 0, 1,
    ]);
    expect(queue.dropped).toBe(0);
  });

  it("ends after one round where it is told to, and says when there is nothing to read", async () => {
    writeFileSync(join(folder.path, "a.png"), "x");
    await open(`folder:${folder.path}?fps=200&loop=0`);
    await take(1);
    await source!.close();
    mkdirSync(join(folder.path, "empty"));
    await open(`folder:${join(folder.path, "empty")}`);
    await until(() => troubles.includes("source_failed"), "the trouble is told");
    writeFileSync(join(folder.path, "empty", "late.jpg"), "y");
    await take(1);
    expect(troubles.at(-1)).toBeUndefined();
  });
});

describe("PpmReader", () => {
  it("finds every image whatever the pieces are", () => {
    const image = (width: number, height: number, fill: number): Buffer =>
      Buffer.concat([Buffer.from(`P6\n${width} ${height}\n255\n`), Buffer.alloc(width * height * 3, fill)]);
    const stream = Buffer.concat([image(3, 2, 7), image(1, 1, 8), image(5, 4, 9)]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sizes) => {
        const reader = new PpmReader();
        const found: string[] = [];
        for (let at = 0, step = 0; at < stream.length; step++) {
          const size = sizes[step % sizes.length]!;
          for (const { width, height, data } of reader.push(stream.subarray(at, at + size))) {
            found.push(`${width}x${height}:${data.length}:${data[0]}:${data.at(-1)}`);
          }
          at += size;
        }
        expect(found).toEqual(["3x2:18:7:7", "1x1:3:8:8", "5x4:60:9:9"]);
      }),
    );
  });

  it("refuses what is no PPM", () => {
    expect(() =>
      new PpmReader().push(Buffer.from("GIF89a and so on, as long as a header may be, and some more bytes")),
    ).toThrow("PPM");
    expect(() =>
      new PpmReader().push(
        Buffer.from("P6 60000 60000 255\n and so on, as long as a header may be, and more"),
      ),
    ).toThrow("60000");
  });
});

describe.skipIf(!hasFfmpeg)("video", () => {
  it("gives every frame of a file as pixels, then ends", async () => {
    const path = join(folder.path, "test.mp4");
    execFileSync("ffmpeg", [
      ...["-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2"],
      ...["-c:v", "mpeg4", path],
    ]);
    await open(`video:file://${path}?pace=none`);
    const frames = await take(20);
    expect(frames[0]!.frame).toMatchObject({ kind: "pixels", width: 64, height: 48, channels: 3 });
    const first = frames[0]!.frame as PixelFrame;
    expect(first.data.length).toBe(64 * 48 * 3);
    expect(new Set(first.data).size).toBeGreaterThan(10);
    expect(queue.dropped).toBe(0);
  }, 20_000);

  it("says what is wrong with a file that is no video", async () => {
    const path = join(folder.path, "no.mp4");
    writeFileSync(path, "this is no video");
    await open(`video:${path}`);
    await until(() => troubles.includes("source_failed"), "the trouble is told");
  });
});

describe("http", () => {
  const answerWith = async (
    outcome: Parameters<NonNullable<SourceFrame["answer"]>>[0],
  ): Promise<SourceFrame> => {
    const frame = (await queue.take())!;
    frame.answer!(outcome);
    return frame;
  };
  const openHttp = async (): Promise<string> => {
    const http = (await open("http:0")) as HttpSource;
    return `http://127.0.0.1:${http.port}/`;
  };

  it("takes an image and answers its prediction", async () => {
    const url = await openHttp();
    const pixels: PixelFrame = {
      kind: "pixels",
      data: new Uint8Array(8 * 8 * 3).fill(90),
      width: 8,
      height: 8,
      channels: 3,
    };
    const jpeg = await encodeJpeg(pixels, 92);
    const response = fetch(url, {
      method: "POST",
      headers: { "content-type": "image/jpeg" },
      body: Buffer.from(jpeg),
    });
    const prediction: Prediction = {
      class: 1,
      label: "light",
      confidence: 0.75,
      signals: { margin: 0.5 },
      latencyMs: 2,
      heads: [],
    };
    const { frame } = await answerWith({ id: "3-7", prediction });
    expect(frame).toEqual({ kind: "encoded", bytes: jpeg });
    expect(await (await response).json()).toEqual({
      ...{ prediction: "3-7", class: 1, label: "light", confidence: 0.75, latencyMs: 2 },
      signals: { margin: 0.5 },
      heads: [],
    });
  });

  it("takes a window as float32", async () => {
    const url = await openHttp();
    const body = Buffer.from(Float32Array.from([1, -2, 0.5]).buffer);
    const headers = { "content-type": "application/x-fieldloop-window" };
    const response = fetch(url, { method: "POST", headers, body });
    const { frame } = await answerWith(undefined);
    expect(frame).toEqual({ kind: "window", samples: Float32Array.from([1, -2, 0.5]) });
    expect((await response).status).toBe(503);
  });

  it.each([
    ["GET", "image/jpeg", "", 404, "not_found"],
    ["POST", "text/plain", "x", 415, "unsupported_media_type"],
    ["POST", "application/octet-stream", "12345", 400, "window_invalid"],
    ["POST", "application/octet-stream", "", 400, "window_invalid"],
    ["POST", "application/octet-stream", "\xff\xff\xff\x7f", 400, "window_invalid"],
  ])("refuses %s with %s by code", async (method, type, body, status, code) => {
    const url = await openHttp();
    const payload = method === "GET" ? {} : { body: Buffer.from(body, "latin1") };
    const response = await fetch(url, { method, headers: { "content-type": type }, ...payload });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ code });
  });

  it.each<readonly [string, Readonly<Record<string, string>>]>([
    ["a page of another origin", { origin: "https://elsewhere.example" }],
    ["a name that was made to lead here", { host: "elsewhere.example" }],
  ])("takes no frame from %s", async (_, headers) => {
    const url = await openHttp();
    const status = await new Promise((resolve, reject) => {
      const call = request(url, { method: "POST", headers: { "content-type": "image/jpeg", ...headers } });
      call.once("response", (response) => resolve(response.resume().statusCode));
      call.once("error", reject);
      call.end("x");
    });
    expect([status, queue.length]).toEqual([403, 0]);
  });

  it("answers busy to the one for which there is no place, not to one that waits already", async () => {
    const url = await openHttp();
    const headers = { "content-type": "image/png" };
    const waiting: Promise<Response>[] = [];
    const status = new Promise((resolve, reject) => {
      const slow = request(url, { method: "POST", headers: { ...headers, expect: "100-continue" } });
      slow.once("response", (response) => resolve(response.resume().statusCode));
      slow.once("error", reject);
      // It was let in while there were places.
      slow.once("continue", () => {
        for (let count = 0; count < 2; count++)
          waiting.push(fetch(url, { method: "POST", headers, body: "1" }));
        until(() => queue.isFull, "the queue is full").then(() => slow.end("x"), reject);
      });
      slow.flushHeaders();
    });
    expect(await status).toBe(503);
    expect([queue.length, queue.dropped]).toEqual([2, 0]);
    queue.close();
    await Promise.all(waiting);
  });

  it("answers busy at once when the queue is full, and refuses a body without end", async () => {
    const url = await openHttp();
    const post = (): Promise<Response> =>
      fetch(url, { method: "POST", headers: { "content-type": "image/png" }, body: Buffer.alloc(4) });
    const first = [post(), post()];
    await until(() => queue.isFull, "the queue is full");
    expect((await post()).status).toBe(503);
    queue.close();
    for (const response of await Promise.all(first)) expect(response.status).toBe(503);
    const huge = fetch(url, {
      method: "POST",
      headers: { "content-type": "image/png" },
      body: Buffer.alloc(17 * 1024 * 1024),
    });
    const status = await huge.then(
      (response) => response.status,
      () => "closed",
    );
    expect([413, "closed"]).toContain(status);
  });
});

describe("simulator", () => {
  it("tells truth for a share of its predictions, later, and to whoever asks here", async () => {
    const simulator = await open("simulator:parts?fps=200&feedback=0.3&feedbackDelayMs=10");
    for (let n = 0; n < 200; n++) {
      const [frame] = await take(1);
      simulator.predicted!(frame!.key!, n);
    }
    await until(() => feedback.length > 0, "feedback");
    expect(feedback.length).toBeGreaterThan(30);
    expect(feedback.length).toBeLessThan(95);
    for (const { n, label } of feedback) expect(simulator.truth!(n)).toBe(label);
    expect(simulator.truth!(9_999)).toBeUndefined();
  });

  it("changes its condition while it runs, and names the conditions that there are", async () => {
    const simulator = await open("simulator:parts?fps=100");
    const mean = async (): Promise<number> => {
      const frames = await take(20);
      const all = frames.flatMap(({ frame }) => (frame.kind === "pixels" ? [...frame.data] : []));
      return all.reduce((a, b) => a + b, 0) / all.length;
    };
    const before = await mean();
    simulator.setCondition!("dim");
    await take(3);
    expect(await mean()).toBeLessThan(before * 0.8);
    expect(() => simulator.setCondition!("fog")).toThrow("normal, degraded");
    const spec: SourceSpec = parseSourceSpec("simulator:bearing?condition=fire");
    expect(() => createSource(spec, context(), 0)).toThrow("outer-race");
  });

  it("cuts windows as the model that runs wants them", async () => {
    const shape = { length: 64, hop: 32, channels: 1, sampleRateHz: 2_560 };
    const wanted = [shape, shape, undefined];
    const spec = parseSourceSpec("simulator:bearing?fps=100");
    queue = new FrameQueue(64);
    // Asked for once a window: the first wants none, as a model of another kind does.
    source = createSource(spec, { ...context(), window: () => wanted.pop() }, 0);
    await source.open();
    const windows = (await take(3)).map(({ frame }) => (frame as { samples: Float32Array }).samples);
    expect(windows.map(({ length }) => length)).toEqual([256, 64, 64]);
    expect(windows[1]!.subarray(32)).toEqual(windows[2]!.subarray(0, 32));
    expect(windows[0]!.subarray(128, 192)).toEqual(windows[1]);
  });

  it("gives windows with their truth", async () => {
    const simulator = await open("simulator:bearing?fps=200&condition=outer-race:0.9");
    const [frame] = await take(1);
    expect(frame!.frame).toMatchObject({ kind: "window" });
    simulator.predicted!(frame!.key!, 0);
    expect(simulator.truth!(0)).toBe("anomalous");
  });
});
