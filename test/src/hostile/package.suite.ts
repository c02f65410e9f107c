import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FieldloopError, manifestFiles, type ErrorCode } from "@fieldloop/protocol";
import {
  GraphBuilder,
  decodeModel,
  encodeModel,
  float32Tensor,
  graphOf,
  int64Tensor,
  makeAttribute,
  makeFunction,
  makeNode,
  type AttributeValue,
  type GraphProto,
  type ModelProto,
} from "@fieldloop/runtime";
import { openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { SPOILED, sha256Of, tinyModel, writeTinyPackage } from "../kit/tiny-package.js";
import type { Stage } from "./stage.js";

type Json = { [key: string]: Json } | Json[] | string | number | boolean | null | undefined;

interface ManifestRow {
  readonly path: string;
  readonly value: Json;
  readonly code: ErrorCode;
}

const invalid = (path: string, value: Json): ManifestRow => ({ path, value, code: "manifest_invalid" });
const VARIANT = {
  name: "fp32",
  file: "fp32.onnx",
  sha256: "0".repeat(64),
  bytes: 1,
  precision: "fp32",
  opset: 17,
  executionProviders: ["cpu"],
};
const HEAD = { name: "x", kind: "classification", output: "logits", labels: ["a"], values: "logits" };

/** Each field of a sound manifest spoiled. */
const MANIFESTS: readonly ManifestRow[] = [
  invalid("schema", 2),
  invalid("schema", "1"),
  invalid("schema", undefined),
  invalid("model", "../tiny"),
  invalid("model", "Tiny"),
  invalid("model", "x".repeat(65)),
  { path: "model", value: "other", code: "invalid_argument" },
  invalid("version", 0),
  invalid("version", 1.5),
  invalid("version", 1_000_001),
  invalid("created", "yesterday"),
  invalid("task", "world-peace"),
  invalid("description", "x".repeat(2_001)),
  invalid("licence", ""),
  invalid("licence", null),
  invalid("inputs", []),
  invalid("inputs", null),
  invalid("inputs.0.kind", "sound"),
  invalid("inputs.0.width", 0),
  invalid("inputs.0.width", 8_193),
  invalid("inputs.0.height", -1),
  invalid("inputs.0.colour", "cmyk"),
  invalid("inputs.0.std", [0]),
  invalid("inputs.0.mean", [0, 0, 0, 0, 0]),
  invalid("inputs.0.elementType", "complex64"),
  invalid("inputs.0.name", ""),
  invalid("heads", []),
  invalid("heads", new Array<Json>(17).fill(HEAD)),
  invalid("heads.0.labels", []),
  invalid(
    "heads.0.labels",
    Array.from({ length: 10_001 }, (_, at) => `l${at}`),
  ),
  invalid("heads.0.labels.0", ""),
  invalid("heads.0.labels.0", "x".repeat(129)),
  invalid("heads.0.temperature", 0),
  invalid("heads.0.kind", "magic"),
  invalid("heads.1.length", 4_097),
  invalid("heads.1.name", "shape"),
  invalid("signals", ["unheard"]),
  invalid("signals", new Array<string>(17).fill("margin")),
  invalid("variants", []),
  invalid("variants", {}),
  invalid("variants.0.name", "FP32"),
  invalid("variants.0.precision", "fp8"),
  invalid("variants.0.opset", 0),
  invalid("variants.0.executionProviders", []),
  invalid("variants.0.cpuFlags", new Array<string>(17).fill("avx2")),
  invalid("variants.0.memoryBytesMax", 0),
  invalid("variants.0.sha256", "abc"),
  invalid("variants.0.sha256", "A".repeat(64)),
  invalid("variants.0.bytes", -1),
  invalid("variants.0.bytes", 2 ** 40),
  invalid("variants.0.bytes", "5"),
  invalid("variants.1", { ...VARIANT, file: "other.onnx" }),
  invalid("variants.1", { ...VARIANT, name: "second" }),
  invalid("variants.1", { ...VARIANT, name: "second", file: "FP32.onnx" }),
  invalid("golden", new Array<Json>(33).fill(null)),
  invalid("golden.0.inputs", []),
  invalid("golden.0.inputs.0.dims", [-1]),
  invalid("golden.0.inputs.0.dims", new Array<number>(9).fill(1)),
  invalid("golden.0.tolerance", { fp32: { absolute: -1, relative: 0 } }),
  invalid("baseline", "baseline.cbor"),
  invalid("replay", {
    file: "r.bin",
    sha256: "0".repeat(64),
    bytes: 1,
    count: 0,
    format: "fieldloop-samples-1",
  }),
  invalid("holdout", {
    file: "h.bin",
    sha256: "0".repeat(64),
    bytes: 1,
    count: 1,
    format: "fieldloop-samples-2",
  }),
  invalid("lineage", undefined),
  invalid("lineage.metrics", { accuracy: "high" }),
  invalid("lineage.base", { model: "tiny", version: 0, sha256: "x" }),
  { path: "variants.0.sha256", value: "0".repeat(64), code: "package_file_missing" },
  { path: "golden.0.inputs.0.file", value: undefined, code: "manifest_name_invalid" },
  { path: "golden.0.inputs.0.bytes", value: 7, code: "package_size_mismatch" },
];

const NAMES: readonly string[] = [
  "",
  ".",
  "..",
  "../fp32.onnx",
  "..\\fp32.onnx",
  "golden/../fp32.onnx",
  "/etc/passwd",
  "C:\\model.onnx",
  "C:model.onnx",
  "\\\\host\\share",
  "golden\\in.bin",
  "fp32.onnx\0",
  "fp32.onnx\0.txt",
  "fp32\n.onnx",
  "x".repeat(300),
  `${"x".repeat(150)}/${"x".repeat(150)}`,
  "a/b/c.onnx",
  "a//b.onnx",
  "a/",
  "/a",
  ".hidden",
  "golden/.hidden",
  "-rf",
  "~/model.onnx",
  "$HOME.onnx",
  "%2e%2e%2fmodel.onnx",
  "model onnx",
  "modèle.onnx",
  "model‮xnno.exe",
  "．．/model.onnx",
  "file:///etc/passwd",
  "http://host/model.onnx",
  "manifest.json",
  "Manifest.JSON",
  "a..b.onnx",
];

type Change = (model: ModelProto, graph: GraphProto) => void;
const sound = tinyModel();
const changed = (change: Change) => (): Uint8Array => {
  const model = decodeModel(sound);
  change(model, graphOf(model));
  return encodeModel(model);
};
const withBytes =
  (...bytes: number[]) =>
  (): Uint8Array =>
    Buffer.concat([sound, Buffer.from(bytes)]);

const LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1270727\n";

/** A function of domain `local` that holds one node of that domain. */
const withFunction = (operator: string) =>
  changed((model) => {
    const node = makeNode(operator, ["x"], ["y"], {}, { domain: "local" });
    model.functions.push(makeFunction("local", "self", ["x"], ["y"], [node]));
  });

/** A graph whose bodies nest `depth` deep. */
function nested(depth: number): GraphProto {
  const graph = new GraphBuilder();
  const attributes: Record<string, AttributeValue> = {};
  if (depth > 0) attributes.then_branch = { g: nested(depth - 1) };
  graph.node(depth === 0 ? "Identity" : "If", ["embedding"], attributes, [`out${depth}`]);
  graph.output(`out${depth}`, "float32");
  return graphOf(graph.build({ opset: 17 }));
}

const MODELS: readonly (readonly [name: string, make: () => Uint8Array, code: ErrorCode])[] = [
  ["nothing", () => new Uint8Array(0), "onnx_malformed"],
  ["text", () => Buffer.from("this is not a model"), "onnx_malformed"],
  ["the first half", () => sound.subarray(0, sound.length >> 1), "onnx_malformed"],
  ["all but the last byte", () => sound.subarray(0, sound.length - 1), "onnx_malformed"],
  [
    "seeded garbage",
    () => Uint8Array.from({ length: 4_096 }, (_, at) => (at * 7919 + 13) & 0xff),
    "onnx_malformed",
  ],
  ["zeros", () => new Uint8Array(1_000), "onnx_malformed"],
  ["a number that does not end", () => Buffer.alloc(1_000, 0xff), "onnx_malformed"],
  [
    "a field that claims 2^60 bytes",
    withBytes(0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f),
    "onnx_malformed",
  ],
  ["ONNX Runtime's own format", () => Buffer.concat([Buffer.from("    ORTM"), sound]), "onnx_malformed"],
  [
    "two million fields",
    () => Buffer.concat([sound, Buffer.alloc(4_000_010, Buffer.from([0x08, 0x01]))]),
    "onnx_too_large",
  ],
  ["no graph", () => Buffer.from([0x08, 0x0a]), "onnx_malformed"],
  ["a local function that calls itself", withFunction("self"), "onnx_too_deep"],
  ["a local function of an unknown operator", withFunction("Relu"), "onnx_unknown_domain"],
  [
    "an operator set of the future",
    changed((model) => (model.opsetImport[0]!.version = 99n)),
    "onnx_unsupported",
  ],
  ["a Git LFS pointer", () => Buffer.from(LFS_POINTER), "onnx_malformed"],
  ["training information", withBytes(0xa2, 0x01, 0x00), "onnx_unsupported"],
  [
    "weights in another file",
    changed((_, graph) => (graph.initializer[0]!.dataLocation = 1)),
    "onnx_external_data",
  ],
  [
    "weights under a path",
    changed((_, { initializer }) => {
      initializer[0]!.dataLocation = 1;
      initializer[0]!.externalData.push({
        $typeName: "onnx.StringStringEntryProto",
        key: "location",
        value: "../../fleet-key.json",
      } as never);
    }),
    "onnx_external_data",
  ],
  ["a domain of its own", changed((_, graph) => (graph.node[0]!.domain = "evil.ops")), "onnx_unknown_domain"],
  [
    "a provider's own context",
    changed((_, graph) => (graph.node[0]!.opType = "EPContext")),
    "onnx_unsupported",
  ],
  [
    "weights that claim 2^40 elements",
    changed((_, graph) => (graph.initializer[0]!.dims = [1n << 40n])),
    "onnx_too_large",
  ],
  [
    "weights that claim 2^63 elements",
    changed((_, graph) => (graph.initializer[0]!.dims = [1n << 31n, 1n << 31n, 2n])),
    "onnx_too_large",
  ],
  [
    "weights of fewer than no elements",
    changed((_, graph) => (graph.initializer[0]!.dims = [-4n, -9n])),
    "onnx_malformed",
  ],
  [
    "weights unlike their dimensions",
    changed((_, graph) => (graph.initializer[0]!.dims = [5n, 5n])),
    "onnx_malformed",
  ],
  [
    "an input of 2^40 elements",
    changed((_, graph) => {
      const wide = new GraphBuilder();
      wide.input("wide", "float32", [1 << 20, 1 << 20]);
      graph.input.push(graphOf(wide.build({ opset: 17 })).input[0]!);
    }),
    "onnx_too_large",
  ],
  [
    "a tensor of 2^40 elements made of nothing",
    changed((_, graph) => {
      graph.initializer.push(int64Tensor("shape", [2], [1 << 20, 1 << 20]));
      graph.node.push(makeNode("ConstantOfShape", ["shape"], ["bomb"]));
    }),
    "onnx_too_large",
  ],
  [
    "2^40 random numbers",
    changed((_, graph) => {
      graph.node.push(makeNode("RandomNormal", [], ["bomb"], { shape: { ints: [1 << 20, 1 << 20] } }));
    }),
    "onnx_too_large",
  ],
  [
    "20,001 nodes",
    changed((_, graph) => {
      for (let at = graph.node.length; at < 20_001; at++)
        graph.node.push(makeNode("Relu", ["logits"], [`r${at}`]));
    }),
    "onnx_too_large",
  ],
  [
    "a Loop whose body reads what nobody writes",
    changed((_, graph) => {
      const body = nested(0);
      body.node[0]!.input[0] = "nothing";
      graph.node.push(makeNode("Loop", ["", ""], ["looped"], { body: { g: body } }));
    }),
    "onnx_malformed",
  ],
  [
    "an If with an engine's context inside",
    changed((_, graph) => {
      const body = nested(0);
      body.node[0]!.opType = "EPContext";
      graph.node.push(
        makeNode("If", ["logits"], ["z"], { then_branch: { g: nested(0) }, else_branch: { g: body } }),
      );
    }),
    "onnx_unsupported",
  ],
  [
    "graphs 30 deep",
    changed((_, graph) =>
      graph.node.push(makeNode("If", ["logits"], ["z"], { then_branch: { g: nested(30) } })),
    ),
    "onnx_too_deep",
  ],
  [
    "one output written twice",
    changed((_, graph) => graph.node.push(makeNode("Relu", ["logits"], ["logits"]))),
    "onnx_malformed",
  ],
  [
    "an output that is an input too",
    changed((_, graph) => graph.node.push(makeNode("Relu", ["logits"], ["image"]))),
    "onnx_malformed",
  ],
  [
    "one initializer twice",
    changed((_, graph) => graph.initializer.push(graph.initializer[0]!)),
    "onnx_malformed",
  ],
  ["one input twice", changed((_, graph) => graph.input.push(graph.input[0]!)), "onnx_malformed"],
  [
    "one attribute twice",
    changed((_, graph) => graph.node[0]!.attribute.push(graph.node[0]!.attribute[0]!)),
    "onnx_malformed",
  ],
  [
    "an attribute of a function",
    changed((_, graph) => {
      const attribute = makeAttribute("alpha", { f: 1 });
      attribute.refAttrName = "alpha";
      graph.node[0]!.attribute.push(attribute);
    }),
    "onnx_malformed",
  ],
  [
    "a tensor that nobody writes",
    changed((_, graph) => (graph.node[0]!.input[0] = "nothing")),
    "onnx_malformed",
  ],
  [
    "an output that nobody writes",
    changed((_, graph) => (graph.output[0]!.name = "nothing")),
    "onnx_malformed",
  ],
  ["no output", changed((_, graph) => (graph.output = [])), "onnx_malformed"],
  ["no operator set", changed((model) => (model.opsetImport = [])), "onnx_malformed"],
  [
    "one operator set twice",
    changed((model) => model.opsetImport.push(model.opsetImport[0]!)),
    "onnx_malformed",
  ],
  ["an operator without a type", changed((_, graph) => (graph.node[0]!.opType = "")), "onnx_malformed"],
  ["a name with NUL", changed((_, graph) => (graph.node[0]!.name = "a\0b")), "onnx_malformed"],
  [
    "a name of 2,000",
    changed((_, graph) => graph.node.push(makeNode("Relu", ["logits"], ["x".repeat(2_000)]))),
    "onnx_malformed",
  ],
  [
    "an element type that is none",
    changed((_, graph) => {
      const tensor = float32Tensor("odd", [1], [1]);
      tensor.dataType = 99;
      graph.initializer.push(tensor);
    }),
    "onnx_unsupported",
  ],
];

export function packageRows(stage: () => Stage): void {
  describe("packages", () => {
    let dir: string;
    let made: ModelPackage;
    let manifest: Record<string, Json>;
    const stem = "tiny";

    beforeAll(async () => {
      dir = await mkdtemp(join(tmpdir(), "fieldloop-hostile-"));
      made = await writeTinyPackage(join(dir, "sound"));
      manifest = JSON.parse(Buffer.from(made.manifestBytes).toString("utf8")) as Record<string, Json>;
      for (const { file, sha256 } of manifestFiles(made.manifest)) {
        await stage().admin.putArtifact(sha256, await readFile(join(made.dir, file)));
      }
    });
    afterAll(() => rm(dir, { recursive: true, force: true }));
    afterEach(async () => {
      stage().count("packages");
      await stage().intact();
    });

    const publish = async (bytes: Uint8Array) => {
      const sha256 = sha256Of(bytes);
      await stage().admin.putArtifact(sha256, bytes);
      return stage()
        .as("operator")
        .send("POST", `/api/v1/models/${stem}/versions`, { body: { manifestSha256: sha256 } });
    };
    const refused = async (bytes: Uint8Array, code: ErrorCode): Promise<void> => {
      const answer = await publish(bytes);
      expect(answer.code, answer.text.slice(0, 300)).toBe(code);
      expect((await stage().admin.send("GET", `/api/v1/models/${stem}`)).code).toBe("not_found");
    };
    const manifestWith = (path: string, value: Json): Uint8Array => {
      const root = structuredClone(manifest);
      const keys = path.split(".");
      let at = root;
      for (const key of keys.slice(0, -1)) at = at[key] as Record<string, Json>;
      at[keys.at(-1)!] = value;
      return Buffer.from(JSON.stringify(root));
    };

    it.each(MANIFESTS.map((row) => ({ ...row, shown: JSON.stringify(row.value)?.slice(0, 60) })))(
      "manifest: $path = $shown",
      ({ path, value, code }) => refused(manifestWith(path, value), code),
    );
    it.each(NAMES.map((name) => [JSON.stringify(name.slice(0, 40)), name]))("file name %s", (_shown, name) =>
      refused(manifestWith("golden.0.inputs.0.file", name), "manifest_name_invalid"),
    );
    it.each([
      ["not JSON", Buffer.from("{"), "manifest_invalid"],
      ["nothing", Buffer.alloc(0), "manifest_invalid"],
      ["a list", Buffer.from("[]"), "manifest_invalid"],
      ["null", Buffer.from("null"), "manifest_invalid"],
      ["not UTF-8", Buffer.from([0x7b, 0xff, 0x7d]), "manifest_invalid"],
      ["deep JSON", Buffer.from("[".repeat(200_000) + "]".repeat(200_000)), "manifest_invalid"],
      ["above 1 MiB", Buffer.alloc(1024 * 1024 + 1, 0x20), "limit_exceeded"],
      ["an ONNX file", Buffer.from(sound), "manifest_invalid"],
    ] as const)("manifest: %s", (_name, bytes, code) => refused(bytes, code));

    it.each(MODELS)("ONNX: %s", async (_name, make, code) => {
      const bytes = make();
      const sha256 = sha256Of(bytes);
      await stage().admin.putArtifact(sha256, bytes);
      const root = structuredClone(manifest);
      Object.assign((root.variants as Record<string, Json>[])[0]!, { sha256, bytes: bytes.length });
      await refused(Buffer.from(JSON.stringify(root)), code);
    });

    it.each(Object.entries(SPOILED))("folder: %s", async (name, { code, spoil }) => {
      const path = join(dir, name.replaceAll(" ", "-"));
      await writeTinyPackage(path);
      await spoil(path);
      const error = await openPackage(path).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(FieldloopError);
      expect((error as FieldloopError).code).toBe(code);
    });

    it("the sound package is published after all of them, and only once", async () => {
      const first = await publish(made.manifestBytes);
      expect(first.status).toBe(201);
      expect((await publish(made.manifestBytes)).status).toBe(201);
      const { versions } = await stage().admin.ok<{ versions: unknown[] }>("GET", `/api/v1/models/${stem}`);
      expect(versions).toHaveLength(1);
    });

    it.each([
      ["the same number again", 1, "already_exists"],
      ["a number that leaves one out", 3, "conflict"],
    ] as const)("%s", async (_name, version, code) => {
      const other = await writeTinyPackage(join(dir, `again-${version}`), { version, seed: 9 });
      for (const { file, sha256 } of manifestFiles(other.manifest)) {
        await stage().admin.putArtifact(sha256, await readFile(join(other.dir, file)));
      }
      expect((await publish(other.manifestBytes)).code).toBe(code);
    });
  });
}
