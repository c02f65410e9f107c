import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeDataFile, manifestFiles } from "@fieldloop/protocol";
import { checkGolden, openModel, openPackage } from "@fieldloop/runtime/node";
import { describe, expect, test } from "vitest";
import { packagePath, shippedModels } from "./index.js";

const packageBytesMax = 1_500_000;

describe.each(shippedModels)("package $name", ({ name, packageDir }) => {
  test("holds exactly what its manifest says, in little space", async () => {
    const { manifest, manifestBytes } = await openPackage(packageDir);
    expect(manifest.model).toBe(name);
    const bytes = manifestFiles(manifest).reduce((sum, file) => sum + file.bytes, manifestBytes.length);
    console.log(`${name}: ${bytes} bytes`);
    expect(bytes).toBeLessThan(packageBytesMax);
  });

  test("results file speaks of this very package", async () => {
    const { packageSha256 } = await openPackage(packageDir);
    const path = join(packagePath(name), "..", "..", "results", `${name}.json`);
    const results = JSON.parse(await readFile(path, "utf8")) as { package: { sha256: string } };
    expect(results.package.sha256).toBe(packageSha256);
  });

  test.each(["fp32", "int8-u8s8"])("golden cases pass on %s", async (variant) => {
    const model = await openModel(await openPackage(packageDir), { variant, threadCount: 1 });
    try {
      const report = await checkGolden(model);
      expect(report.cases).toBeGreaterThanOrEqual(2);
      console.log(`${name} ${variant}: ${report.cases} cases, largest error ${report.worstAbsoluteError}`);
    } finally {
      await model.release();
    }
  });

  test("replay and holdout are readable, labelled, and share no input", async () => {
    const { manifest } = await openPackage(packageDir);
    const read = async (file: string) => decodeDataFile(await readFile(join(packageDir, file)));
    const replay = await read(manifest.replay!.file);
    const holdout = await read(manifest.holdout!.file);
    expect(replay).toHaveLength(manifest.replay!.count);
    expect(holdout).toHaveLength(manifest.holdout!.count);
    const [head] = manifest.heads;
    const labels = head.kind === "classification" || head.kind === "anomaly" ? head.labels : [];
    for (const item of [...replay, ...holdout]) expect(labels).toContain(item.label);
    const seen = new Set(replay.map((item) => Buffer.from(item.payload).toString("base64")));
    expect(holdout.some((item) => seen.has(Buffer.from(item.payload).toString("base64")))).toBe(false);
  });
});
