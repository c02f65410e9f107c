import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { manifestFiles, type PipelineSpec } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { buildPipeline, replacePart } from "./build-pipeline.js";
import { checkGolden } from "./golden.js";
import { openModel } from "./model.js";
import { openPackage, type ModelPackage } from "./package.js";
import { boxesHead, draftOf, fixedBoxesModel, imageInput, variantOf } from "./pipeline-packages.test.kit.js";
import { brightnessDraft, scratchFolder, writeBrightnessPackage } from "./small-packages.test.kit.js";
import { ModelWorker } from "./worker.js";
import { writePackage } from "./write-package.js";

const CREATED = new Date("2026-11-20T12:00:00Z");

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
let detector: ModelPackage;
let shade: ModelPackage;
beforeEach(async () => {
  scratch = await scratchFolder();
  const draft = draftOf({
    model: "detector",
    version: 5,
    licence: "MIT",
    inputs: [imageInput(8)],
    heads: [boxesHead()],
    signals: ["margin"],
    variants: [variantOf("model.onnx")],
  });
  const files = { "model.onnx": fixedBoxesModel(8, 1, [[0, 0, 0.5, 1]], [0.9]) };
  detector = await writePackage(join(scratch.path, "detector"), draft, files);
  shade = await writeBrightnessPackage(join(scratch.path, "shade"));
});
afterEach(() => scratch.remove());

const SPEC: PipelineSpec = {
  model: "whole",
  version: 1,
  description: "Boxes, and how light they are",
  root: "detector",
  nodes: [
    {
      name: "shade",
      package: "shade",
      from: { kind: "crop", node: "root", head: "things", scoreThreshold: 0, cropsMax: 4, margin: 0 },
      when: { node: "root", head: "things", confidenceMin: 0.5 },
    },
  ],
};

const build = (
  spec: PipelineSpec = SPEC,
  parts = new Map([
    ["root", detector],
    ["shade", shade],
  ]),
) => buildPipeline(join(scratch.path, "whole"), spec, parts, { created: CREATED });

describe("a pipeline of packages", () => {
  it("holds every part in a folder of its own, runs, and says where the parts came from", async () => {
    const whole = await build();
    expect(await openPackage(whole.dir)).toEqual(whole);
    const { manifest } = whole;
    expect(manifest).toMatchObject({
      task: "pipeline",
      licence: "Apache-2.0 AND MIT",
      root: { model: "detector", version: 5 },
      signals: ["margin"],
    });
    expect(manifest.nodes).toMatchObject([
      {
        name: "shade",
        model: "brightness",
        version: 1,
        from: SPEC.nodes[0]!.from,
        when: SPEC.nodes[0]!.when,
      },
    ]);
    expect(manifestFiles(manifest).map(({ file }) => file)).toEqual([
      "root/model.onnx",
      "shade/model.onnx",
      "shade/golden-in.bin",
      "shade/golden-out.bin",
    ]);
    expect(manifest.lineage.settings).toEqual({
      "part.root": `detector@5 ${detector.packageSha256}`,
      "part.shade": `brightness@1 ${shade.packageSha256}`,
    });
    const model = await openModel(whole, { threadCount: 1 });
    try {
      expect((await checkGolden(model)).cases).toBe(1);
      const data = Uint8Array.from({ length: 64 }, (_, at) => (at % 8 < 4 ? 255 : 0));
      const { nodes } = await model.predict({ kind: "pixels", data, width: 8, height: 8, channels: 1 });
      expect(nodes![0]!.heads[0]).toMatchObject({ label: "light" });
    } finally {
      await model.release();
    }
  });
  it("takes the signals of the part that decides, and no part that is a pipeline", async () => {
    const { draft, files } = brightnessDraft();
    const silent = await writePackage(
      join(scratch.path, "silent"),
      { ...draft, heads: [draft.heads[1]!], signals: ["brightness"] },
      files,
    );
    const spec: PipelineSpec = { ...SPEC, nodes: [{ name: "shade", package: "", from: { kind: "frame" } }] };
    const whole = await build(
      spec,
      new Map([
        ["root", silent],
        ["shade", shade],
      ]),
    );
    expect(whole.manifest.signals).toEqual(["brightness", "margin", "entropy", "energy", "novelty"]);
    expect(whole.manifest.baseline?.file).toBe("root/baseline.cbor");
    const options = { created: CREATED };
    const parts = new Map([
      ["root", detector],
      ["shade", whole],
    ]);
    await expect(buildPipeline(join(scratch.path, "nested"), SPEC, parts, options)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining('"whole@1" is a pipeline itself'),
    });
    const missing = new Map([["root", detector]]);
    await expect(buildPipeline(join(scratch.path, "few"), SPEC, missing, options)).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });
  it("keeps apart files whose names would meet", async () => {
    const { draft, files } = brightnessDraft();
    const { "golden/in.bin": input, ...others } = files;
    const golden = draft.golden![0]!;
    const meeting = await writePackage(
      join(scratch.path, "meeting"),
      {
        ...draft,
        variants: [{ ...draft.variants[0]!, file: "golden-OUT.bin" }],
        golden: [{ ...golden, inputs: [{ ...golden.inputs[0]!, file: "in.bin" }] }],
      },
      {
        "golden-OUT.bin": others["model.onnx"]!,
        "golden/out.bin": others["golden/out.bin"]!,
        "baseline.cbor": others["baseline.cbor"]!,
        "in.bin": input!,
      },
    );
    const whole = await build(
      SPEC,
      new Map([
        ["root", detector],
        ["shade", meeting],
      ]),
    );
    await openPackage(whole.dir);
    expect(new Set(manifestFiles(whole.manifest).map(({ file }) => file.toLowerCase())).size).toBe(4);
  });
});

describe("a pipeline that is opened", () => {
  it("takes of each node the variant of the wanted name, else what suits the machine", async () => {
    const { draft, files } = brightnessDraft();
    const [fp32] = draft.variants;
    const other = { ...fp32!, name: "other", file: "other.onnx" };
    const two = await writePackage(
      join(scratch.path, "two"),
      { ...draft, variants: [fp32!, other] },
      { ...files, "other.onnx": files["model.onnx"]! },
    );
    const spec = { ...SPEC, root: "", nodes: [{ name: "a", package: "", from: { kind: "frame" } as const }] };
    let made = 0;
    const variantsWith = async (
      root: ModelPackage,
      node: ModelPackage,
      variant?: string,
    ): Promise<string[]> => {
      const name = `opened-${made++}`;
      const parts = new Map([
        ["root", root],
        ["a", node],
      ]);
      const pkg = await buildPipeline(join(scratch.path, name), spec, parts, { created: CREATED });
      const model = await openModel(pkg, { threadCount: 1, ...(variant === undefined ? {} : { variant }) });
      await model.release();
      return model.parts.map((part) => part.variant.name);
    };
    expect(await variantsWith(two, two, "other")).toEqual(["other", "other"]);
    expect(await variantsWith(two, two)).toEqual(["fp32", "fp32"]);
    expect(await variantsWith(two, shade, "other")).toEqual(["other", "fp32"]);
    await expect(variantsWith(shade, two, "other")).rejects.toMatchObject({ code: "not_found" });
  });
  it("predicts in a worker, whose answers carry what every node said", async () => {
    const { dir } = await build();
    const worker = new ModelWorker();
    await worker.start();
    try {
      await worker.load("main", dir, { threadCount: 1 });
      expect(await worker.checkGolden("main")).toMatchObject({ cases: 1 });
      const data = new Uint8Array(64).fill(255);
      const frame = { kind: "pixels", data, width: 8, height: 8, channels: 1 } as const;
      const { label, nodes } = await worker.predict("main", frame);
      expect(label).toBe("thing");
      expect(nodes).toMatchObject([{ node: "shade", crop: 0, heads: [{ label: "light" }, {}] }]);
    } finally {
      await worker.stop();
    }
  });
});

describe("a part that is replaced", () => {
  it("leaves the files of all others as they are, and follows the pipeline before", async () => {
    const first = await build();
    const better = await writeBrightnessPackage(join(scratch.path, "better"), { gain: 2, version: 2 });
    const dir = join(scratch.path, "second");
    const second = await replacePart(dir, first, "shade", better, { created: CREATED });
    expect(second.manifest.version).toBe(2);
    expect(second.manifest.lineage.base).toEqual({
      model: "whole",
      version: 1,
      sha256: first.packageSha256,
    });
    expect(second.manifest.lineage.settings).toEqual({
      "part.root": `detector@5 ${detector.packageSha256}`,
      "part.shade": `brightness@2 ${better.packageSha256}`,
    });
    const before = new Map(manifestFiles(first.manifest).map(({ file, sha256 }) => [file, sha256]));
    const changed = manifestFiles(second.manifest).filter(({ file, sha256 }) => before.get(file) !== sha256);
    expect(changed.map(({ file }) => file)).toEqual(["shade/model.onnx", "shade/golden-out.bin"]);
    expect(await readFile(join(dir, "root/model.onnx"))).toEqual(
      await readFile(join(detector.dir, "model.onnx")),
    );
    expect(second.manifest.nodes[0]).toMatchObject({ version: 2, from: first.manifest.nodes[0]!.from });
  });
  it("may be the root, as long as it has what the nodes take", async () => {
    const first = await build();
    const options = { created: CREATED, version: 9 };
    const again = await replacePart(join(scratch.path, "again"), first, "root", detector, options);
    expect(again.manifest).toMatchObject({ version: 9, root: { model: "detector" } });
    await expect(replacePart(join(scratch.path, "bad"), first, "root", shade, options)).rejects.toMatchObject(
      { code: "manifest_invalid", message: expect.stringContaining('no head "things"') },
    );
    await expect(replacePart(join(scratch.path, "bad"), first, "side", shade, options)).rejects.toMatchObject(
      { code: "not_found" },
    );
  });
});
