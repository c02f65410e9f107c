import { join } from "node:path";
import { emptyStatistics, type ErrorCode } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it, vi, type MockInstance } from "vitest";
import type { PixelFrame } from "../input/frame.js";
import { tensorToBytes } from "../package/tensor-bytes.js";
import { Pipeline } from "../pipeline/pipeline.js";
import { Predictor, type Prediction } from "../predict.js";
import { encodeBaseline } from "../profile/baseline.js";
import { checkGolden } from "./golden.js";
import { decodeImage, prepareImage } from "./image.js";
import { encodeJpeg } from "./jpeg.js";
import { openModel, type LoadedModel } from "./model.js";
import {
  boxesHead,
  brightnessOf,
  COUNT_STATE,
  countingModel,
  draftOf,
  fixedBoxesModel,
  imageInput,
  labelHead,
  linearModel,
  quartersModel,
  variantOf,
  windowInput,
  type Draft,
  type NodeDraft,
} from "./pipeline-packages.test.kit.js";
import { scratchFolder } from "./small-packages.test.kit.js";
import { writePackage } from "./write-package.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
const open: LoadedModel[] = [];
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(async () => {
  for (const model of open.splice(0)) await model.release();
  await scratch.remove();
});

async function openDraft({ draft, files }: Draft): Promise<LoadedModel> {
  const pkg = await writePackage(join(scratch.path, `p${open.length}`), draft, files);
  const model = await openModel(pkg, { threadCount: 1 });
  open.push(model);
  return model;
}

/** Counts the runs of each part's session from now on. */
function countRuns(model: LoadedModel): () => Record<string, number> {
  const spies = new Map<string, MockInstance>();
  for (const { name, session } of model.parts) spies.set(name, vi.spyOn(session, "run"));
  return () => Object.fromEntries([...spies].map(([name, spy]) => [name, spy.mock.calls.length]));
}

function grayImage(
  width: number,
  height: number,
  paint: (x: number, y: number) => number = () => 0,
): PixelFrame {
  const data = new Uint8Array(width * height);
  for (let at = 0; at < data.length; at++) data[at] = paint(at % width, Math.floor(at / width));
  return { kind: "pixels", data, width, height, channels: 1 };
}

const labelsOf = (prediction: Prediction): unknown[] =>
  prediction.nodes!.map(({ node, heads }) => [node, ...heads.map((head) => "label" in head && head.label)]);

const FEATURES = { kind: "tensor" as const, name: "x", elementType: "float32" as const, dims: [0, 4] };

function headNode(name: string, more: Partial<NodeDraft> = {}): NodeDraft {
  return {
    name,
    model: `head-${name}`,
    version: 3,
    from: { kind: "tensors", tensors: { x: "features" } },
    inputs: [FEATURES],
    heads: [labelHead("y", ["no", "yes"])],
    variants: [variantOf(`${name}/model.onnx`)],
    ...more,
  };
}

/** Means of the quarters of a 4×4 image, and three heads: is the top lighter, is the left lighter, is the right bottom light. */
function backbone(
  nodes: readonly NodeDraft[] = ["top", "left", "corner"].map((name) => headNode(name)),
): Draft {
  return {
    draft: draftOf({
      model: "quarters",
      root: { model: "backbone", version: 7 },
      inputs: [imageInput(4)],
      heads: [],
      nodes: [...nodes],
      signals: ["margin", "entropy", "instability", "brightness"],
      variants: [variantOf("root/model.onnx")],
    }),
    files: {
      "root/model.onnx": quartersModel(),
      "top/model.onnx": linearModel([
        [0, 0, 4, 4],
        [4, 4, 0, 0],
      ]),
      "left/model.onnx": linearModel([
        [0, 4, 0, 4],
        [4, 0, 4, 0],
      ]),
      "corner/model.onnx": linearModel([
        [0, 0, 0, -8],
        [0, 0, 0, 8],
      ]),
    },
  };
}

describe("a backbone with three heads", () => {
  it("runs once a frame, and each head once on what it gave", async () => {
    const model = await openDraft(backbone());
    const runs = countRuns(model);
    const topLight = await model.predict(grayImage(4, 4, (_, y) => (y < 2 ? 200 : 0)));
    expect(runs()).toEqual({ root: 1, top: 1, left: 1, corner: 1 });
    expect(labelsOf(topLight)).toEqual([
      ["top", "yes"],
      ["left", "no"],
      ["corner", "no"],
    ]);
    const leftLight = await model.predict(grayImage(4, 4, (x) => (x < 2 ? 200 : 0)));
    expect(labelsOf(leftLight).map((row) => (row as string[])[1])).toEqual(["no", "yes", "no"]);
    expect(runs()).toEqual({ root: 2, top: 2, left: 2, corner: 2 });
  });
  it("is named by its first head, with that head's signals", async () => {
    const model = await openDraft(backbone());
    const light = grayImage(4, 4, (_, y) => (y < 2 ? 255 : 0));
    const prediction = await model.predict(light);
    const [top] = prediction.nodes!;
    expect(top).toMatchObject({ node: "top", model: "head-top", version: 3 });
    const head = top!.heads[0]!;
    expect(prediction).toMatchObject({ class: 1, label: "yes", heads: [] });
    expect(prediction.confidence).toBe("confidence" in head && head.confidence);
    expect(prediction.confidence).toBeCloseTo(1 / (1 + Math.exp(-8)), 5);
    expect(Object.keys(prediction.signals)).toEqual(["margin", "entropy", "instability", "brightness"]);
    expect(prediction.signals.margin).toBe("margin" in head && head.margin);
    expect(prediction.signals.instability).toBe(0);
    const turned = await model.predict(grayImage(4, 4, (_, y) => (y < 2 ? 0 : 255)));
    expect(turned).toMatchObject({ label: "no", signals: { instability: 1 } });
    const other = await model.predict(light, "another camera");
    expect(other.signals.instability).toBe(0);
    model.resetStream();
    expect((await model.predict(light)).signals.instability).toBe(0);
  });
  it("runs its nodes in the order they need each other, whatever the manifest's order", async () => {
    const second = headNode("corner", {
      from: { kind: "tensors", node: "top", tensors: { x: "y" } },
      inputs: [{ ...FEATURES, dims: [0, 2] }],
    });
    const { draft, files } = backbone([second, headNode("top")]);
    const model = await openDraft({
      draft,
      files: {
        "root/model.onnx": files["root/model.onnx"]!,
        "top/model.onnx": files["top/model.onnx"]!,
        "corner/model.onnx": linearModel([
          [1, 0],
          [0, 1],
        ]),
      },
    });
    const prediction = await model.predict(grayImage(4, 4, (_, y) => (y < 2 ? 200 : 0)));
    expect(labelsOf(prediction)).toEqual([
      ["corner", "yes"],
      ["top", "yes"],
    ]);
    expect(prediction.nodes!.map(({ parent }) => parent)).toEqual([1, undefined]);
  });
  it("has golden cases for every part, each with the part's own graph", async () => {
    const { draft, files } = backbone();
    const floats = (name: string, file: string, dims: number[]) =>
      ({ name, file, elementType: "float32", dims }) as const;
    const golden = (error: number): Draft => ({
      draft: {
        ...draft,
        golden: [
          {
            name: "ramp",
            node: "corner",
            inputs: [floats("x", "corner/in.bin", [1, 4])],
            outputs: [floats("y", "corner/out.bin", [1, 2])],
            tolerance: { fp32: { absolute: 1e-4, relative: 0 } },
          },
        ],
      },
      files: {
        ...files,
        "corner/in.bin": bytes([0, 0.25, 0.5, 0.75]),
        "corner/out.bin": bytes([-6, 6 + error]),
      },
    });
    expect(await checkGolden(await openDraft(golden(0)))).toMatchObject({ cases: 1 });
    const model = await openDraft(golden(1));
    await expect(checkGolden(model)).rejects.toThrow('"ramp": output "y"[1] is 6, wanted 7');
    await expect(model.runTensors({}, undefined, "side")).rejects.toMatchObject({ code: "not_found" });
  });
  it("releases every part that was open where one does not open", async () => {
    const { draft, files } = backbone();
    const garbage = { ...files, "corner/model.onnx": new TextEncoder().encode("no model") };
    await expect(openDraft({ draft, files: garbage })).rejects.toMatchObject({ code: "onnx_malformed" });
  });
});

function bytes(values: readonly number[]): Uint8Array {
  return tensorToBytes({ type: "float32", dims: [values.length], data: Float32Array.from(values) });
}

/** A wide image whose left, middle and right thirds are black, gray and white; three boxes, one in each third, the middle one the best. */
const THIRDS = grayImage(96, 48, (x) => [0, 100, 255][Math.floor(x / 32)]!);
const BOXES = [
  [4, 12, 28, 40],
  [36, 12, 60, 40],
  [68, 12, 92, 40],
] as const;
const SCORES = [0.8, 0.9, 0.7];

/** Where a corner in pixels of {@link THIRDS} lies in a square input that letterboxes it. */
function letterboxed([x0, y0, x1, y1]: readonly [number, number, number, number]): [
  number,
  number,
  number,
  number,
] {
  return [x0 / 96, (y0 + 24) / 96, x1 / 96, (y1 + 24) / 96];
}

function cropper(more: { batch?: number | string; from?: Record<string, unknown> } = {}): Draft {
  const node: NodeDraft = {
    name: "shade",
    model: "brightness",
    version: 2,
    from: { kind: "crop", head: "things", ...more.from },
    inputs: [imageInput(8)],
    heads: [labelHead("logits", ["dark", "light"])],
    variants: [variantOf("shade/model.onnx")],
  };
  return {
    draft: draftOf({
      model: "cropper",
      inputs: [imageInput(96, { resize: "letterbox" })],
      heads: [boxesHead()],
      nodes: [node],
      variants: [variantOf("root/model.onnx")],
    }),
    files: {
      "root/model.onnx": fixedBoxesModel(96, 1, BOXES.map(letterboxed), SCORES),
      "shade/model.onnx": brightnessOf(8, more.batch),
    },
  };
}

describe("crop, then classify", () => {
  it("classifies what lies in each box of the source image, best box first", async () => {
    const model = await openDraft(cropper());
    const prediction = await model.predict(THIRDS);
    // The root decides: its class is the box's.
    expect(prediction).toMatchObject({ class: 0, label: "thing" });
    expect(prediction.boxes!.map(({ x0 }) => Math.round(x0 * 96))).toEqual([36, 4, 68]);
    expect(prediction.nodes!.map(({ crop, parent }) => [crop, parent])).toEqual([
      [0, undefined],
      [1, undefined],
      [2, undefined],
    ]);
    const logits = prediction.nodes!.map(
      ({ heads }) => heads[0]!.kind === "classification" && heads[0].logits![1],
    );
    // Of mean m: 8·(m − 0.5), whatever lies outside the box.
    const wanted = [100, 0, 255].map((value) => expect.closeTo(8 * (value / 255 - 0.5), 3));
    expect(logits).toEqual(wanted);
  });
  it("puts the crops of a frame into one run where the graph has an open batch", async () => {
    const batched = await openDraft(cropper());
    await batched.predict(THIRDS);
    const together = countRuns(batched);
    const first = await batched.predict(THIRDS);
    expect(together()).toEqual({ root: 1, shade: 1 });
    const single = await openDraft(cropper({ batch: 1 }));
    const alone = countRuns(single);
    const second = await single.predict(THIRDS);
    expect(alone()).toEqual({ root: 1, shade: 3 });
    expect(labelsOf(first)).toEqual(labelsOf(second));
  });
  it("takes the labels, scores and count of boxes that are asked for", async () => {
    const best = await openDraft(cropper({ from: { cropsMax: 1, labels: ["thing"] } }));
    expect((await best.predict(THIRDS)).nodes!.map(({ crop }) => crop)).toEqual([0]);
    const sure = await openDraft(cropper({ from: { scoreThreshold: 0.75 } }));
    expect((await sure.predict(THIRDS)).nodes!.map(({ crop }) => crop)).toEqual([0, 1]);
    const none = await openDraft(cropper({ from: { scoreThreshold: 1 } }));
    expect((await none.predict(THIRDS)).nodes).toEqual([]);
  });
  it("grows boxes by their margin", async () => {
    const wide = await openDraft(cropper({ from: { margin: 0.5, cropsMax: 1 } }));
    const [node] = (await wide.predict(THIRDS)).nodes!;
    // 24 pixels and 12 more on each side: 8 of the left third, 8 of the right.
    const mean = (8 * 0 + 32 * 100 + 8 * 255) / 48 / 255;
    const [head] = node!.heads;
    expect(head!.kind === "classification" && head.logits![1]).toBeCloseTo(8 * (mean - 0.5), 1);
  });
  it("places what a model found in a crop in the whole image, and cuts that out again", async () => {
    const { draft, files } = cropper();
    const eyes: NodeDraft = {
      ...draft.nodes![0]!,
      name: "eyes",
      inputs: [imageInput(8)],
      heads: [boxesHead()],
      variants: [variantOf("eyes/model.onnx")],
    };
    const shade: NodeDraft = { ...draft.nodes![0]!, from: { kind: "crop", node: "eyes", head: "things" } };
    const model = await openDraft({
      draft: { ...draft, nodes: [shade, eyes] },
      files: { ...files, "eyes/model.onnx": fixedBoxesModel(8, 1, [[0.5, 0, 1, 0.5]], [0.95]) },
    });
    const { nodes } = await model.predict(THIRDS);
    const found = nodes!.filter(({ node }) => node === "eyes");
    const corners = found.map(({ heads }) => {
      const [head] = heads;
      if (head?.kind !== "detection") return undefined;
      const { x0, y0, x1, y1 } = head.boxes[0]!;
      return [x0 * 96, y0 * 48, x1 * 96, y1 * 48].map(Math.round);
    });
    expect(corners).toEqual([
      [48, 12, 60, 26],
      [16, 12, 28, 26],
      [80, 12, 92, 26],
    ]);
    const shades = nodes!.filter(({ node }) => node === "shade");
    expect(shades.map(({ parent }) => nodes![parent!]!.node)).toEqual(["eyes", "eyes", "eyes"]);
    expect(shades.map(({ heads }) => "label" in heads[0]! && heads[0].label)).toEqual([
      "dark",
      "dark",
      "light",
    ]);
  });
  it("gives the same from a JPEG, and refuses what is no image", async () => {
    const model = await openDraft(cropper());
    const encoded = await encodeJpeg(THIRDS, 95);
    const prediction = await model.predict({ kind: "encoded", bytes: encoded });
    expect(labelsOf(prediction)).toEqual(labelsOf(await model.predict(THIRDS)));
    await expect(model.predict({ kind: "encoded", bytes: new Uint8Array(9) })).rejects.toMatchObject({
      code: "image_type_refused",
    });
    const image = { type: "float32", dims: [1, 1, 96, 96], data: new Float32Array(96 * 96) } as const;
    await expect(model.predict({ kind: "tensors", feeds: { image } })).rejects.toThrow(
      'Node "shade": Cut crops: the frame is of kind "tensors", wanted an image',
    );
    expect((await model.predict(THIRDS)).nodes).toHaveLength(3);
  });
});

describe("a frame that several models look at", () => {
  it("is decoded once, and answered with its own results however many are asked for at a time", async () => {
    const { draft, files } = cropper();
    const again: NodeDraft = { ...draft.nodes![0]!, name: "again", from: { kind: "frame" } };
    const model = await openDraft({ draft: { ...draft, nodes: [...draft.nodes!, again] }, files });
    let decoded = 0;
    const pipeline = new Pipeline({
      manifest: model.manifest,
      root: new Predictor({
        manifest: model.manifest,
        session: model.session,
        sizeImage: prepareImage,
        now: () => performance.now(),
      }),
      sessions: new Map(model.parts.map(({ name, session }) => [name, session])),
      sizeImage: prepareImage,
      decodeImage: (frame) => {
        decoded++;
        return decodeImage(frame);
      },
      now: () => performance.now(),
    });
    const shades = [0, 30, 60, 200, 250];
    const frames = await Promise.all(
      shades.map((shade) =>
        encodeJpeg(
          grayImage(64, 64, () => shade),
          95,
        ),
      ),
    );
    const predictions = await Promise.all(
      frames.map((image) => pipeline.predict({ kind: "encoded", bytes: image })),
    );
    expect(decoded).toBe(shades.length);
    predictions.forEach(({ nodes }, at) => {
      expect(nodes).toHaveLength(4);
      const label = shades[at]! > 127 ? "light" : "dark";
      expect(nodes!.map(({ heads }) => "label" in heads[0]! && heads[0].label)).toEqual(Array(4).fill(label));
    });
  });
});

describe("a condition", () => {
  const whenLight = (when: NodeDraft["when"]): Draft => {
    const second: NodeDraft = {
      name: "second",
      model: "brightness",
      version: 1,
      from: { kind: "frame" },
      ...(when === undefined ? {} : { when }),
      inputs: [imageInput(4)],
      heads: [labelHead("logits", ["dark", "light"])],
      variants: [variantOf("second/model.onnx")],
    };
    return {
      draft: draftOf({
        model: "two-stage",
        inputs: [imageInput(8)],
        heads: [labelHead("logits", ["dark", "light"])],
        nodes: [second],
        variants: [variantOf("root/model.onnx")],
      }),
      files: { "root/model.onnx": brightnessOf(8), "second/model.onnx": brightnessOf(4) },
    };
  };
  const shade = (value: number): PixelFrame => grayImage(16, 16, () => value);

  it("keeps a second stage from running", async () => {
    const model = await openDraft(whenLight({ head: "class", labels: ["light"], confidenceMin: 0.9 }));
    const runs = countRuns(model);
    expect((await model.predict(shade(0))).nodes).toEqual([]);
    // Mean 0.6: "light", but only as 1 / (1 + e^-1.6) = 0.83.
    expect((await model.predict(shade(153))).nodes).toEqual([]);
    expect(runs()).toEqual({ root: 2, second: 0 });
    expect(labelsOf(await model.predict(shade(255)))).toEqual([["second", "light"]]);
    expect(runs()).toEqual({ root: 3, second: 1 });
  });
  it("asks each box by itself where the node cuts them", async () => {
    const { draft, files } = cropper();
    const closer: NodeDraft = {
      ...draft.nodes![0]!,
      name: "closer",
      from: { kind: "tensors", node: "shade", tensors: { x: "logits" } },
      when: { node: "shade", head: "class", labels: ["light"] },
      inputs: [{ ...FEATURES, dims: [0, 2] }],
      heads: [labelHead("y", ["no", "yes"])],
      variants: [variantOf("closer/model.onnx")],
    };
    const model = await openDraft({
      draft: { ...draft, nodes: [...draft.nodes!, closer] },
      files: {
        ...files,
        "closer/model.onnx": linearModel([
          [1, 0],
          [0, 1],
        ]),
      },
    });
    const { nodes } = await model.predict(THIRDS);
    expect(nodes!.filter(({ node }) => node === "closer")).toMatchObject([{ parent: 2 }]);
  });
});

describe("two stages of sound", () => {
  const LENGTH = 4;
  /** A level meter that counts its windows, and one behind it that looks back a window and counts its own. */
  const twoStages = (when?: NodeDraft["when"]): Draft => {
    const heads = (output: string): NodeDraft["heads"] => [
      { name: output, kind: "regression", output, targets: [{ name: output }] },
    ];
    return {
      draft: draftOf({
        model: "sound",
        inputs: [windowInput(LENGTH), COUNT_STATE],
        heads: [
          { name: "count", kind: "regression", output: "count", targets: [{ name: "count" }] },
          {
            name: "loud",
            kind: "anomaly",
            method: "score",
            output: "level",
            threshold: 0.5,
            labels: ["quiet", "loud"],
          },
        ],
        nodes: [
          {
            name: "behind",
            model: "behind",
            version: 1,
            from: { kind: "frame" },
            ...(when === undefined ? {} : { when }),
            inputs: [windowInput(LENGTH, LENGTH), COUNT_STATE],
            heads: [...heads("level"), ...heads("count")],
            variants: [variantOf("behind/model.onnx")],
          },
        ],
        variants: [variantOf("root/model.onnx")],
      }),
      files: { "root/model.onnx": countingModel(LENGTH), "behind/model.onnx": countingModel(2 * LENGTH) },
    };
  };
  const valueOf = (heads: Prediction["heads"], name: string): number | undefined => {
    const head = heads.find((one) => one.name === name);
    return head?.kind === "regression" ? head.values[0] : undefined;
  };
  const hear = async (model: LoadedModel, level: number, stream?: string): Promise<unknown[]> => {
    const samples = new Float32Array(LENGTH).fill(level);
    const { heads, nodes } = await model.predict({ kind: "window", samples }, stream);
    const behind = nodes![0]?.heads;
    return [valueOf(heads, "count"), behind && valueOf(behind, "count"), behind && valueOf(behind, "level")];
  };

  it("carry their states side by side, stream by stream, and start anew when told", async () => {
    const model = await openDraft(twoStages());
    expect(await hear(model, 1)).toEqual([1, 1, 0.5]);
    expect(await hear(model, 1)).toEqual([2, 2, 1]);
    expect(await hear(model, 3, "another")).toEqual([1, 1, 1.5]);
    expect(await hear(model, 0)).toEqual([3, 3, 0.5]);
    model.resetStream("another");
    expect(await hear(model, 1)).toEqual([4, 4, 0.5]);
    model.resetStream();
    expect(await hear(model, 1)).toEqual([1, 1, 0.5]);
  });
  it("look back on samples that the second stage was not run on, with state that starts anew", async () => {
    const model = await openDraft(twoStages({ head: "loud", labels: ["loud"] }));
    expect(await hear(model, 1)).toEqual([1, 1, 0.5]);
    expect(await hear(model, 1)).toEqual([2, 2, 1]);
    expect(await hear(model, 0.25)).toEqual([3, undefined, undefined]);
    expect(await hear(model, 0.75)).toEqual([4, 1, 0.5]);
  });
});

describe("a pipeline whose graphs do not fit", () => {
  const without = (name: string, files: Record<string, Uint8Array>): Record<string, Uint8Array> =>
    Object.fromEntries(Object.entries(files).filter(([file]) => !file.startsWith(name)));
  const table: [string, () => Draft, ErrorCode, RegExp][] = [
    [
      "a tensor that the backbone does not give",
      () => {
        const { draft, files } = backbone([
          headNode("top", { from: { kind: "tensors", tensors: { x: "embedding" } } }),
        ]);
        return { draft, files: without("left", without("corner", files)) };
      },
      "manifest_invalid",
      /no output "embedding", the graph has "features"/,
    ],
    [
      "an input that the node's graph lacks",
      () => {
        const { draft, files } = backbone([
          headNode("top", {
            from: { kind: "tensors", tensors: { z: "features" } },
            inputs: [{ ...FEATURES, name: "z" }],
          }),
        ]);
        return { draft, files: without("left", without("corner", files)) };
      },
      "manifest_invalid",
      /Open node "top": no input "z", the graph has "x"/,
    ],
  ];
  it.each(table)("is refused for %s", async (_, make, code, message) => {
    await expect(openDraft(make())).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });
});

describe("anomalies by embedding in further nodes", () => {
  const NOVELTY: NodeDraft["heads"][number] = {
    name: "strange",
    kind: "anomaly",
    method: "embedding",
    output: "logits",
    threshold: 2,
    labels: ["usual", "strange"],
  };
  /** White lies at the one centroid there is, black opposite to it: at a distance of 2, four of its units. */
  const baseline = encodeBaseline({
    statistics: emptyStatistics(),
    novelty: {
      centroids: Float32Array.of(-Math.SQRT1_2, Math.SQRT1_2),
      count: 1,
      length: 2,
      median: 0.5,
    },
  });
  const strange = (from: NodeDraft["from"]): Draft => ({
    draft: draftOf({
      model: "scene",
      inputs: [imageInput(4)],
      heads: [boxesHead()],
      nodes: [
        {
          name: "odd",
          model: "odd",
          version: 1,
          from,
          inputs: [imageInput(4)],
          heads: [NOVELTY],
          variants: [variantOf("odd/model.onnx")],
        },
      ],
      variants: [variantOf("root/model.onnx")],
      baseline: { file: "baseline.cbor" },
    }),
    files: {
      "root/model.onnx": fixedBoxesModel(
        4,
        1,
        [
          [0, 0, 0.5, 1],
          [0.5, 0, 1, 1],
        ],
        [0.9, 0.8],
      ),
      "odd/model.onnx": brightnessOf(4),
      "baseline.cbor": baseline,
    },
  });
  it("are measured against the package's baseline, crop by crop", async () => {
    const model = await openDraft(strange({ kind: "crop", head: "things" }));
    const prediction = await model.predict(grayImage(8, 8, (x) => (x < 4 ? 255 : 0)));
    expect(labelsOf(prediction)).toEqual([
      ["odd", "usual"],
      ["odd", "strange"],
    ]);
  });
  it("are measured against it where the node looks at the frame itself", async () => {
    const model = await openDraft(strange({ kind: "frame" }));
    expect(labelsOf(await model.predict(grayImage(4, 4, () => 255)))).toEqual([["odd", "usual"]]);
    expect(labelsOf(await model.predict(grayImage(4, 4)))).toEqual([["odd", "strange"]]);
  });
});
