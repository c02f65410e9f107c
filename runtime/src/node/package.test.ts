import { createHash } from "node:crypto";
import { link, mkdir, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { manifestSchema } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseManifest } from "../package/manifest.js";
import { openPackage } from "./package.js";
import { brightnessDraft, scratchFolder, writeBrightnessPackage } from "./small-packages.test.kit.js";
import { writePackage } from "./write-package.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
let dir: string;
beforeEach(async () => {
  scratch = await scratchFolder();
  dir = join(scratch.path, "package");
});
afterEach(() => scratch.remove());

type Json = Record<string, unknown>;

/** Rewrites the manifest, so that only what it says is wrong. */
async function editManifest(
  edit: (manifest: Json & { variants: Json[]; golden: Json[] }) => void,
): Promise<void> {
  const path = join(dir, "manifest.json");
  const manifest = JSON.parse(await readFile(path, "utf8"));
  edit(manifest);
  await writeFile(path, JSON.stringify(manifest));
}

describe("a written package", () => {
  it("opens with the hash of its manifest, and holds what the manifest names", async () => {
    const written = await writeBrightnessPackage(dir);
    const opened = await openPackage(dir);
    expect(opened).toEqual(written);
    const hash = createHash("sha256")
      .update(await readFile(join(dir, "manifest.json")))
      .digest("hex");
    expect(opened.packageSha256).toBe(hash);
    expect(manifestSchema.safeParse(opened.manifest).success).toBe(true);
    expect(opened.manifest.variants[0]!.bytes).toBe((await readFile(join(dir, "model.onnx"))).length);
  });
  it("has the same bytes when it is written again", async () => {
    const first = await writeBrightnessPackage(dir);
    const second = await writeBrightnessPackage(join(scratch.path, "again"));
    expect(second.packageSha256).toBe(first.packageSha256);
  });
  it("never replaces another", async () => {
    const first = await writeBrightnessPackage(dir);
    await expect(writeBrightnessPackage(dir, { gain: 2 })).rejects.toMatchObject({ code: "already_exists" });
    expect((await openPackage(dir)).packageSha256).toBe(first.packageSha256);
  });
  it("needs exactly the files of its manifest", async () => {
    const { draft, files } = brightnessDraft();
    const { "baseline.cbor": _, ...fewer } = files;
    await expect(writePackage(dir, draft, fewer)).rejects.toMatchObject({ code: "package_file_missing" });
    const more = { ...files, "notes.txt": new Uint8Array(1) };
    await expect(writePackage(dir, draft, more)).rejects.toMatchObject({ code: "package_file_unexpected" });
  });
  it("runs without its training data, and is not whole without it", async () => {
    const { draft, files } = brightnessDraft();
    const replay = { file: "replay.bin", count: 1, format: "fieldloop-samples-1" } as const;
    await writePackage(dir, { ...draft, replay }, { ...files, "replay.bin": new Uint8Array(8) });
    await rm(join(dir, "replay.bin"));
    await expect(openPackage(dir)).rejects.toMatchObject({ code: "package_file_missing" });
    expect((await openPackage(dir, { purpose: "running" })).manifest.replay?.file).toBe("replay.bin");
  });
});

describe("a package folder that was tampered with", () => {
  const table: [string, string, () => Promise<unknown>][] = [
    ["no folder", "not_found", () => rm(dir, { recursive: true })],
    ["no manifest", "not_found", () => rm(join(dir, "manifest.json"))],
    ["manifest is no JSON", "manifest_invalid", () => writeFile(join(dir, "manifest.json"), "{")],
    [
      "manifest is no UTF-8",
      "manifest_invalid",
      () => writeFile(join(dir, "manifest.json"), Buffer.from([0xff])),
    ],
    ["manifest is a list", "manifest_invalid", () => writeFile(join(dir, "manifest.json"), "[]")],
    ["manifest too large", "limit_exceeded", () => truncate(join(dir, "manifest.json"), 1024 * 1024 + 1)],
    ["unknown schema", "manifest_invalid", () => editManifest((manifest) => (manifest["schema"] = 2))],
    ["no variants", "manifest_invalid", () => editManifest((manifest) => (manifest["variants"] = []))],
    ["missing model", "package_file_missing", () => rm(join(dir, "model.onnx"))],
    ["missing golden folder", "package_file_missing", () => rm(join(dir, "golden"), { recursive: true })],
    ["extra file", "package_file_unexpected", () => writeFile(join(dir, "weights.bin"), "x")],
    [
      "extra file in a known folder",
      "package_file_unexpected",
      () => writeFile(join(dir, "golden", "x.bin"), "x"),
    ],
    ["extra folder", "package_file_unexpected", () => mkdir(join(dir, "more"))],
    ["hidden extra file", "package_file_unexpected", () => writeFile(join(dir, ".hidden"), "x")],
    [
      "one byte changed",
      "package_hash_mismatch",
      async () => {
        const bytes = await readFile(join(dir, "model.onnx"));
        bytes[bytes.length - 1]! ^= 1;
        await writeFile(join(dir, "model.onnx"), bytes);
      },
    ],
    ["model cut short", "package_size_mismatch", () => truncate(join(dir, "model.onnx"), 10)],
    ["model grown", "package_size_mismatch", () => truncate(join(dir, "model.onnx"), 100_000)],
    [
      "model is a symbolic link",
      "package_link_refused",
      async () => {
        await rename(join(dir, "model.onnx"), join(scratch.path, "elsewhere"));
        await symlink(join(scratch.path, "elsewhere"), join(dir, "model.onnx"));
      },
    ],
    [
      "model has a second name outside",
      "package_link_refused",
      () => link(join(dir, "model.onnx"), join(scratch.path, "elsewhere")),
    ],
    [
      "golden folder is a symbolic link",
      "package_link_refused",
      async () => {
        await rename(join(dir, "golden"), join(scratch.path, "golden"));
        await symlink(join(scratch.path, "golden"), join(dir, "golden"));
      },
    ],
    [
      "manifest is a symbolic link",
      "package_link_refused",
      async () => {
        await rename(join(dir, "manifest.json"), join(scratch.path, "manifest.json"));
        await symlink(join(scratch.path, "manifest.json"), join(dir, "manifest.json"));
      },
    ],
    [
      "a folder in place of a file",
      "package_file_unexpected",
      async () => {
        await rm(join(dir, "model.onnx"));
        await mkdir(join(dir, "model.onnx"));
      },
    ],
    [
      "two variants of one name",
      "manifest_invalid",
      () => editManifest(({ variants }) => variants.push(variants[0]!)),
    ],
    [
      "one file with two hashes",
      "manifest_invalid",
      () =>
        editManifest(({ variants }) => variants.push({ ...variants[0]!, name: "b", sha256: "0".repeat(64) })),
    ],
  ];
  it.each(table)("%s: %s", async (_, code, tamper) => {
    await writeBrightnessPackage(dir);
    await tamper();
    await expect(openPackage(dir)).rejects.toMatchObject({ name: "FieldloopError", code });
  });

  const names = [
    "../model.onnx",
    "/etc/passwd",
    "a/../../b",
    "..",
    ".hidden",
    "a/b/c",
    "a\\b",
    "",
    "model.onnx\0",
    "a/..b..",
    "manifest.json",
    "MANIFEST.JSON",
  ];
  it.each(names)("file name %j is refused before any file is looked at", async (name) => {
    await writeBrightnessPackage(dir);
    await editManifest(({ variants }) => (variants[0]!["file"] = name));
    await expect(openPackage(dir)).rejects.toMatchObject({ code: "manifest_name_invalid" });
  });

  it("without the hashes still has its names, sizes and links checked", async () => {
    await writeBrightnessPackage(dir);
    const bytes = await readFile(join(dir, "model.onnx"));
    bytes[0]! ^= 1;
    await writeFile(join(dir, "model.onnx"), bytes);
    await expect(openPackage(dir, { verifyFiles: false })).resolves.toBeDefined();
    await truncate(join(dir, "model.onnx"), 10);
    await expect(openPackage(dir, { verifyFiles: false })).rejects.toMatchObject({
      code: "package_size_mismatch",
    });
  });
});

it("a manifest with more files than the limit is refused", () => {
  const { draft } = brightnessDraft();
  const file = (name: string) => ({ file: name, sha256: "0".repeat(64), bytes: 0 });
  const tensors = (at: number) =>
    Array.from({ length: 16 }, (_, index) => ({
      ...file(`g/${at}-${index}.bin`),
      name: "x",
      elementType: "float32",
      dims: [0],
    }));
  const golden = Array.from({ length: 17 }, (_, at) => ({
    name: `${at}`,
    inputs: tensors(at),
    outputs: tensors(at),
    tolerance: {},
  }));
  const manifest = {
    ...draft,
    variants: [{ ...draft.variants[0], ...file("m") }],
    baseline: file("b"),
    golden,
  };
  expect(() => parseManifest(new TextEncoder().encode(JSON.stringify(manifest)))).toThrow(
    /at most 256 allowed/,
  );
});
