import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openSource } from "./model-quantize-source.js";
import { runHere, type Outcome } from "../testing/command-line.test.kit.js";

/** A package that ships with the project: an int8 and a float variant, a class and an embedding. */
const PARTS = fileURLToPath(new URL("../../../models/packages/parts", import.meta.url));

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-cli-"));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

/** Runs `fieldloop pipeline …` in this process, with what it prints and its exit code. */
const pipeline = (...args: readonly string[]): Promise<Outcome> => runHere("pipeline", ...args);

describe("fieldloop pipeline", () => {
  it("splits, builds, shows and replaces", { timeout: 30_000 }, async () => {
    const at = (name: string): string => join(dir, name);
    const split = await pipeline("split", PARTS, "--out", at("cut"), "--json");
    expect(split).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(split.out).parts.map(({ node }: { node: string }) => node)).toEqual(["root", "part"]);

    const built = await pipeline("build", join(at("cut"), "pipeline.json"), "--out", at("whole"), "--json");
    expect(JSON.parse(built.out)).toMatchObject({
      version: "parts@2",
      nodes: [{ name: "part", version: 1 }],
    });

    const shown = await pipeline("show", at("whole"));
    expect(shown.code).toBe(0);
    expect(shown.out).toMatch(/root +parts-backbone@1 +frame .* \d+ %\n└─ part +parts-head-1@1 +embedding/);
    const quick = JSON.parse((await pipeline("show", at("whole"), "--no-time", "--json")).out);
    expect(quick.parts[1]).toMatchObject({ name: "part", from: { kind: "tensors", node: "root" } });
    expect(quick.parts[1].runMs).toBeUndefined();

    const limits = { calibrationMax: 4, evaluationMax: 4 };
    await expect(openSource(at("whole"), limits, true)).rejects.toThrow(
      /a pipeline of 2 models; quantize the package of each part by itself/,
    );

    const head = join(at("cut"), "part");
    const replaced = await pipeline(
      "replace",
      at("whole"),
      "--node",
      "part",
      "--with",
      head,
      "--out",
      at("next"),
    );
    expect(replaced.code).toBe(0);
    expect(replaced.out).toMatch(/parts@3 +2 /);
    const file = "root/fp32.onnx";
    expect(await readFile(join(at("next"), file))).toEqual(await readFile(join(at("whole"), file)));
  });

  it("says what is wrong with a description, and leaves no package that does not open", async () => {
    const file = join(dir, "p.json");
    const out = join(dir, "out");
    const build = async (text: string): Promise<{ code: number; err: string }> => {
      await writeFile(file, text);
      return pipeline("build", file, "--out", out);
    };
    expect(await build("{")).toMatchObject({ code: 2, err: expect.stringContaining("not JSON") });
    const node = { name: "again", package: PARTS, from: { kind: "frame" } };
    const spec = { model: "p", root: PARTS, nodes: [node] };
    const typo = await build(JSON.stringify({ ...spec, nodez: [] }));
    expect(typo).toMatchObject({ code: 2, err: expect.stringContaining("nodez") });
    const fed = { ...node, from: { kind: "tensors", tensors: { image: "nothing" } } };
    const lost = await build(JSON.stringify({ ...spec, nodes: [fed] }));
    expect(lost).toMatchObject({ code: 1, err: expect.stringContaining('no output "nothing"') });
    expect(existsSync(out)).toBe(false);
    expect((await build(JSON.stringify(spec))).code).toBe(0);
    expect(await pipeline("build", join(dir, "none.json"), "--out", out)).toMatchObject({ code: 1 });
    const unknown = await pipeline("replace", out, "--node", "z", "--with", PARTS, "--out", join(dir, "o"));
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('no node "z"') });
  });
});
