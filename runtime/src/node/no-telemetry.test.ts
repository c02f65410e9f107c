import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { scratchFolder, writeBrightnessPackage } from "./small-packages.test.kit.js";

const WAYS = {
  "in the same thread": `const { ortNode } = await import(AT + "ort.js");
    const session = await ortNode.openSession(DIR + "/model.onnx", { threadCount: 1, executionProvider: "cpu" });
    await session.release();`,
  "in a thread": `const { ModelWorker } = await import(AT + "worker.js");
    const worker = new ModelWorker();
    await worker.start();
    await worker.load("a", DIR, { threadCount: 1, executionProvider: "cpu" });
    await worker.stop();`,
};

it.each(Object.entries(WAYS))(
  "a session opened %s leaves no trace and reports nothing",
  async (_, program) => {
    const scratch = await scratchFolder();
    try {
      const dir = join(scratch.path, "package");
      const home = join(scratch.path, "home");
      await mkdir(home);
      const { manifest } = await writeBrightnessPackage(dir);
      const script = program.replace("/model.onnx", `/${manifest.variants[0]!.file}`);
      const places = `const AT = ${JSON.stringify(new URL(".", import.meta.url).href)}; const DIR = ${JSON.stringify(dir)};`;
      // Continuous integration would keep it silent by itself, as would whoever set the variable before.
      const env = { PATH: process.env.PATH, HOME: home, TMPDIR: home, XDG_CACHE_HOME: home };
      const { status, stderr } = spawnSync(
        process.execPath,
        ["--input-type=module", "-e", `${places}\n${script}`],
        { env, encoding: "utf8" },
      );
      expect(stderr).toBe("");
      expect(status).toBe(0);
      expect(readdirSync(home)).toEqual([]);
    } finally {
      await scratch.remove();
    }
  },
);
