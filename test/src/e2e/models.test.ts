import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { MODEL_CASES } from "../bench/models-cases.js";
import { importCommand, ModelCommands, publicData } from "../bench/models-commands.js";
import { partOf, presetsTable } from "../bench/models-page.js";
import { scratchFolder } from "../kit/fleet.js";

/** Folder with public models and data sets; it is not part of the project. */
const data = publicData(process.env["FIELDLOOP_TEST_DATA"]);
const reason =
  data === undefined ? " (skipped: FIELDLOOP_TEST_DATA names no folder with models and sets)" : "";
const scratch = scratchFolder("models");
const lines: string[] = [];
const TIMEOUT_MS = 60_000;
const page = readFileSync(fileURLToPath(new URL("../../../docs/models.md", import.meta.url)), "utf8");

afterAll(() => {
  if (lines.length > 0) console.log(lines.join("\n"));
  scratch.remove();
});

describe.skipIf(data === undefined)(`public models by the command line${reason}`, () => {
  const commands = new ModelCommands(data ?? "", scratch.path);

  it.concurrent.each(MODEL_CASES.map((model) => [model.id, model] as const))(
    "%s is imported by one command and does what it is known to do",
    { timeout: TIMEOUT_MS },
    async (_id, model) => {
      const imported = await commands.import(model);
      expect(imported).toMatchObject({ preset: model.preset, golden: { cases: 1, worstAbsoluteError: 0 } });
      const { text, value, reference } = model.find(await commands.run(model));
      lines.push(`${model.id}: ${text}`);
      if (reference !== undefined) {
        expect(Math.abs(value - reference.value), text).toBeLessThanOrEqual(reference.tolerance + 1e-9);
      }
    },
  );
});

describe("docs/models.md", () => {
  it("lists every public model with the command that imports it", () => {
    const table = partOf(page, "models");
    for (const model of MODEL_CASES) expect(table).toContain(`\`${importCommand(model)}\``);
  });
  it("lists every preset (npm run bench -- models --markdown docs/models.md)", () => {
    expect(partOf(page, "presets")).toBe(presetsTable());
  });
});
