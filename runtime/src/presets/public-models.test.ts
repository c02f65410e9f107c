import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { intersectionOverUnion } from "../heads/nms.js";
import { importModel } from "../node/import.js";
import { openModel } from "../node/model.js";
import { scratchFolder } from "../node/small-packages.test.kit.js";
import { decodeModel } from "../onnx/model.js";
import { describeModel } from "./boundary.js";
import { COCO_LABELS } from "./labels.js";
import type { PresetOptions } from "./preset.js";
import { suggestPreset } from "./presets.js";

/** Folder with public models and data sets; it is not part of the project. */
const dataFolder = process.env.FIELDLOOP_TEST_DATA ?? "";
const hasData =
  dataFolder !== "" && existsSync(join(dataFolder, "models")) && existsSync(join(dataFolder, "sets"));
const ffmpeg = "/usr/bin/ffmpeg";
const reason = hasData
  ? existsSync(ffmpeg)
    ? ""
    : ` (videos skipped: no ${ffmpeg})`
  : " (skipped: FIELDLOOP_TEST_DATA names no folder with models and sets)";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(() => scratch.remove());

async function open(file: string, preset: string, presetOptions: PresetOptions = {}) {
  const dir = join(scratch.path, file.replaceAll(/[^a-z0-9]/gi, "-"));
  const pkg = await importModel(join(dataFolder, "models", file), dir, {
    preset,
    presetOptions,
    model: "public",
    licence: "MIT",
    created: new Date("2026-11-20T00:00:00Z"),
    golden: false,
  });
  return openModel(pkg, { threadCount: 1 });
}

/** Frames of a video as JPEG files, `rate` a second. */
function framesOf(video: string, rate: number): Uint8Array[] {
  const source = join(dataFolder, "sets/videos", video);
  const args = [
    "-loglevel",
    "error",
    "-i",
    source,
    "-vf",
    `fps=${rate}`,
    "-q:v",
    "2",
    join(scratch.path, "%03d.jpg"),
  ];
  expect(spawnSync(ffmpeg, args).status).toBe(0);
  const names = readdirSync(scratch.path).filter((name) => name.endsWith(".jpg"));
  return names.sort().map((name) => readFileSync(join(scratch.path, name)));
}

describe.skipIf(!hasData)(`public models by their presets${reason}`, () => {
  it.each([
    ["fastestdet/FastestDet.onnx", "fastestdet"],
    ["mnist-8/mnist.onnx", "mnist"],
    ["micro-kws/kws_fp32.onnx", "keywords"],
    ["micro-kws/kws_int8_io.onnx", "keywords"],
    ["silero-vad/silero_vad.onnx", "silero-vad"],
    ["silero-vad/silero_vad_16k_op15.onnx", "silero-vad"],
    ["silero-vad/silero_vad_half.onnx", "silero-vad"],
    ["silero-vad/silero_vad_op18_ifless.onnx", "silero-vad"],
    ["style-transfer/mosaic.onnx", "image-to-image"],
    ["ultraface/version-RFB-320.onnx", "ultraface"],
    ["ultraface/version-RFB-640.onnx", "ultraface"],
    ["ultraface/version-slim-320.onnx", "ultraface"],
    ["ultraface/version-RFB-320_without_postprocessing.onnx", "ultraface-raw"],
  ])("%s is recognized as %s alone", (file, preset) => {
    const model = decodeModel(readFileSync(join(dataFolder, "models", file)));
    expect(suggestPreset(describeModel(model))).toEqual([preset]);
  });

  it("iris: 147 of 150 rows", { timeout: 30_000 }, async () => {
    const names = ["SepalLengthCm", "SepalWidthCm", "PetalLengthCm", "PetalWidthCm"];
    const labels = ["Iris-setosa", "Iris-versicolor", "Iris-virginica"];
    const columns = names.map((name) => ({ name, encoding: { kind: "number" as const } }));
    const model = await open("iris-nn/Network.onnx", "tabular-classifier", { labels, columns });
    const [, ...rows] = readFileSync(join(dataFolder, "sets/iris/Iris.csv"), "utf8").trim().split(/\r?\n/);
    let right = 0;
    for (const row of rows) {
      const [, ...cells] = row.split(",");
      const values = Object.fromEntries(names.map((name, at) => [name, Number(cells[at])]));
      if ((await model.predict({ kind: "row", values })).label === cells[4]) right++;
    }
    await model.release();
    console.log(`iris: ${right} of ${rows.length}`);
    expect(right).toBe(147);
  });

  it.each(["kws_fp32", "kws_int8_io"])("%s hears no and yes", { timeout: 30_000 }, async (file) => {
    const model = await open(`micro-kws/${file}.onnx`, "keywords");
    const folder = join(dataFolder, "sets/mcu-kws/micro_speech_input");
    const heard: string[] = [];
    for (const name of ["0.bin", "1.bin"]) {
      // 8-bit features of the front-end: 26 in 256 steps, from -128.
      const codes = new Int8Array(readFileSync(join(folder, name)));
      const samples = Float32Array.from(codes, (code) => ((code + 128) * 26) / 256);
      heard.push((await model.predict({ kind: "window", samples })).label);
    }
    await model.release();
    expect(heard).toEqual(["no", "yes"]);
  });

  it("silero hears speech in 77.4 ± 0.5 % of the windows", { timeout: 60_000 }, async () => {
    const wav = readFileSync(join(dataFolder, "sets/silero-audio/test.wav"));
    const at = wav.indexOf("data") + 8;
    const samples = Float32Array.from(
      { length: (wav.length - at) >> 1 },
      (_, i) => wav.readInt16LE(at + i * 2) / 32768,
    );
    const model = await open("silero-vad/silero_vad_16k_op15.onnx", "silero-vad");
    let speech = 0;
    let windows = 0;
    for (let from = 0; from + 512 <= samples.length; from += 512, windows++) {
      const { label } = await model.predict({ kind: "window", samples: samples.slice(from, from + 512) });
      if (label === "speech") speech++;
    }
    await model.release();
    const percent = (speech / windows) * 100;
    console.log(`silero: speech in ${percent.toFixed(2)} % of ${windows} windows`);
    expect(Math.abs(percent - 77.4)).toBeLessThanOrEqual(0.5);
  });

  it.skipIf(!existsSync(ffmpeg))(
    "UltraFace without post-processing finds the same faces as with it",
    { timeout: 60_000 },
    async () => {
      const frames = framesOf("book.mkv", 2);
      const raw = await open("ultraface/version-RFB-320_without_postprocessing.onnx", "ultraface-raw");
      const whole = await open("ultraface/version-RFB-320.onnx", "ultraface");
      let least = 1;
      for (const bytes of frames) {
        const [a, b] = [
          await raw.predict({ kind: "encoded", bytes }),
          await whole.predict({ kind: "encoded", bytes }),
        ];
        expect(a.boxes!.length).toBe(b.boxes!.length);
        expect(a.boxes!.length).toBeGreaterThan(0);
        a.boxes!.forEach((box, at) => {
          least = Math.min(least, intersectionOverUnion(box, b.boxes![at]!));
          expect(box.score).toBeCloseTo(b.boxes![at]!.score, 4);
        });
      }
      await Promise.all([raw.release(), whole.release()]);
      console.log(`UltraFace raw: overlap of at least ${least.toFixed(4)} in ${frames.length} frames`);
      expect(least).toBeGreaterThan(0.999);
    },
  );

  it.skipIf(!existsSync(ffmpeg))(
    "FastestDet sees the bottle in nine of ten frames",
    { timeout: 60_000 },
    async () => {
      const frames = framesOf("bottle-detection.mp4", 0.5);
      const model = await open("fastestdet/FastestDet.onnx", "fastestdet");
      let found = 0;
      for (const bytes of frames) {
        const { boxes } = await model.predict({ kind: "encoded", bytes });
        const bottle = boxes!.find((box) => COCO_LABELS[box.class] === "bottle");
        // A bottle stands upright and takes a good part of the picture's height.
        if (bottle !== undefined && bottle.y1 - bottle.y0 > bottle.x1 - bottle.x0) found++;
      }
      await model.release();
      console.log(`FastestDet: an upright bottle in ${found} of ${frames.length} frames`);
      expect(found / frames.length).toBeGreaterThanOrEqual(0.9);
    },
  );
});
