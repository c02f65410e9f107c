import { appendFile, mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { manifestFiles, type Assignment, type PipelineSpec } from "@fieldloop/protocol";
import { encodeModel, float32Tensor, GraphBuilder, tensorToBytes } from "@fieldloop/runtime";
import {
  buildPipeline,
  checkGolden,
  openModel,
  openPackage,
  replacePart,
  writePackage,
  type ManifestDraft,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TestFleet } from "../testing/fleet.test.kit.js";
import { scratchFolder } from "../testing/package.test.kit.js";
import { systemClock } from "../clock.js";
import { openTestBandwidth } from "../testing/updater.test.kit.js";
import { httpFetch } from "./http-fetch.js";
import { enrol, type Identity } from "./identity.js";
import { type FetchedPackage, PackageFetch } from "./package-fetch.js";
import { PackageStore } from "./package-store.js";

const CREATED = new Date("2026-11-20T00:00:00Z");
const WIDTH = 64;

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let fleet: TestFleet;
let identity: Identity;
let store: PackageStore;

beforeEach(async () => {
  folder = await scratchFolder();
  fleet = new TestFleet();
  await fleet.start();
  const directory = join(folder.path, "state");
  await mkdir(directory);
  store = new PackageStore(directory);
  await store.open();
  const options = { server: fleet.serverUrl, token: "t", tags: {}, facts: FACTS, fetch: httpFetch };
  identity = await enrol(directory, options);
});
afterEach(async () => {
  await fleet.stop();
  await folder.remove();
});

const FACTS = {
  arch: "x64",
  platform: "linux",
  cpuModel: "test",
  cpuCount: 1,
  cpuFlags: [],
  memoryBytes: 1_000_000_000,
  executionProviders: ["cpu"],
  nodeVersion: "20.20.2",
  runtimeVersion: "test",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};

/** A dense layer of {@link WIDTH} numbers, each weight `value`, with a golden case: input of ones. */
async function layer(
  name: string,
  options: { version?: number; value: number; heads?: ManifestDraft["heads"] },
): Promise<ModelPackage> {
  const { value, version = 1, heads = [] } = options;
  const graph = new GraphBuilder();
  const x = graph.input("x", "float32", [1, WIDTH]);
  const weight = graph.initializer(
    float32Tensor("weight", [WIDTH, WIDTH], new Array<number>(WIDTH * WIDTH).fill(value)),
  );
  graph.node("MatMul", [x, weight], {}, ["y"]);
  graph.output("y", "float32", [1, WIDTH]);
  const floats = (filled: number): Uint8Array =>
    tensorToBytes({ type: "float32", dims: [WIDTH], data: new Float32Array(WIDTH).fill(filled) });
  const tensor = (of: string, file: string) => ({
    name: of,
    file,
    elementType: "float32" as const,
    dims: [1, WIDTH],
  });
  const draft: ManifestDraft = {
    schema: 1,
    model: name,
    version,
    created: CREATED.toISOString(),
    task: heads.length === 0 ? "pipeline" : "embedding",
    licence: "Apache-2.0",
    inputs: [{ kind: "tensor", name: "x", elementType: "float32", dims: [1, WIDTH] }],
    heads,
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [
      {
        name: "ones",
        inputs: [tensor("x", "golden/in.bin")],
        outputs: [tensor("y", "golden/out.bin")],
        tolerance: {},
      },
    ],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(join(folder.path, `${name}-${version}`), draft, {
    "fp32.onnx": encodeModel(graph.build({ opset: 17 })),
    "golden/in.bin": floats(1),
    "golden/out.bin": floats(value * WIDTH),
  });
}

const HEAD: ManifestDraft["heads"] = [{ name: "e", kind: "embedding", output: "y", length: WIDTH }];
const headNode = (name: string): PipelineSpec["nodes"][number] => ({
  name,
  package: name,
  from: { kind: "tensors", node: "root", tensors: { x: "y" } },
});

/** A backbone with the heads `left` and `right`. */
async function twoHeads(): Promise<ModelPackage> {
  const parts = new Map([
    ["root", await layer("backbone", { value: 1 / WIDTH })],
    ["left", await layer("left", { value: 0.25, heads: HEAD })],
    ["right", await layer("right", { value: 0.5, heads: HEAD })],
  ]);
  const spec: PipelineSpec = {
    model: "two-heads",
    version: 1,
    description: "",
    root: "backbone",
    nodes: [headNode("left"), headNode("right")],
  };
  return buildPipeline(join(folder.path, "two-heads-1"), spec, parts, { created: CREATED });
}

async function bring(pkg: ModelPackage): Promise<FetchedPackage & { readonly paths: string[] }> {
  const assignment: Assignment = await fleet.publish(pkg, `d${pkg.manifest.version}`);
  fleet.requests.length = 0;
  const fetched = await new PackageFetch(store, assignment, {
    server: fleet.serverUrl,
    credential: identity.credential,
    fetch: httpFetch,
    clock: systemClock,
    random: () => 0,
    bandwidth: await openTestBandwidth(folder.path),
    signal: new AbortController().signal,
  }).files();
  await store.verify(assignment);
  await store.install(pkg.packageSha256);
  return { ...fetched, paths: fleet.requests.map(({ path }) => path.replace(/^.*\//, "")) };
}

describe("a new version of one head", () => {
  it("travels alone: the backbone and the other head are copied from the version before", async () => {
    const first = await twoHeads();
    const all = manifestFiles(first.manifest);
    const whole = await bring(first);
    // Input and, by chance of the weights, other golden files are the same for several parts: each content travels once.
    expect(new Set(whole.paths).size).toBe(whole.paths.length);
    expect(whole.paths).toHaveLength(1 + new Set(all.map(({ sha256 }) => sha256)).size);

    const better = await layer("right", { version: 2, value: 0.75, heads: HEAD });
    const second = await replacePart(join(folder.path, "two-heads-2"), first, "right", better, {
      created: CREATED,
    });
    const known = new Set(all.map(({ sha256 }) => sha256));
    const changed = manifestFiles(second.manifest).filter(({ sha256 }) => !known.has(sha256));
    expect(changed.map(({ file }) => file)).toEqual(["right/fp32.onnx", "right/golden-out.bin"]);
    const update = await bring(second);
    expect(update.paths.sort()).toEqual(
      [second.packageSha256, ...changed.map(({ sha256 }) => sha256)].sort(),
    );
    const bytes = (files: readonly { bytes: number }[]): number =>
      files.reduce((sum, file) => sum + file.bytes, 0);
    const kept = manifestFiles(second.manifest).filter(({ sha256 }) => known.has(sha256));
    expect(update.bytesDownloaded).toBe(bytes(changed) + second.manifestBytes.length);
    expect(update.bytesReused).toBe(bytes(kept));

    const installed = await openPackage(store.toRun(second.packageSha256).directory);
    const model = await openModel(installed, { threadCount: 1 });
    try {
      expect((await checkGolden(model)).cases).toBe(3);
    } finally {
      await model.release();
    }
  });

  it("is downloaded after all where the device's copy was harmed", async () => {
    const first = await twoHeads();
    await bring(first);
    const backbone = first.manifest.variants[0]!;
    await appendFile(join(store.toRun(first.packageSha256).directory, backbone.file), "x");
    const better = await layer("right", { version: 2, value: 0.75, heads: HEAD });
    const second = await replacePart(join(folder.path, "two-heads-2"), first, "right", better, {
      created: CREATED,
    });
    expect((await bring(second)).paths).toContain(backbone.sha256);
    const { directory } = store.toRun(second.packageSha256);
    expect(await readFile(join(directory, backbone.file))).toEqual(
      await readFile(join(first.dir, backbone.file)),
    );
    expect(await readdir(directory)).not.toContain(`${backbone.file}.tmp`);
  });

  it("shares files with a package of another model as well", async () => {
    const alone = await layer("left", { value: 0.25, heads: HEAD });
    await bring(alone);
    const whole = await bring(await inPipelineWith(alone));
    const shared = new Set(manifestFiles(alone.manifest).map(({ sha256 }) => sha256));
    expect(whole.paths.filter((sha256) => shared.has(sha256))).toEqual([]);
    expect(whole.bytesReused).toBeGreaterThan(alone.manifest.variants[0]!.bytes);
  });
});

async function inPipelineWith(left: ModelPackage): Promise<ModelPackage> {
  const parts = new Map([
    ["root", await layer("backbone", { value: 1 / WIDTH })],
    ["left", left],
  ]);
  const spec: PipelineSpec = {
    model: "one-head",
    version: 1,
    description: "",
    root: "backbone",
    nodes: [headNode("left")],
  };
  return buildPipeline(join(folder.path, "one-head-1"), spec, parts, { created: CREATED });
}
