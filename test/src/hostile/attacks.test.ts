import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AttackStage } from "./attack-stage.js";
import { ATTACKS } from "./attacks.suite.js";

describe("attacks on what a device runs", () => {
  const stage = new AttackStage();
  beforeAll(() => stage.start(), 120_000);
  afterAll(async () => {
    await stage.stop();
    process.stdout.write(
      `attack table: ${ATTACKS.map(({ name, code }) => `\n  ${name}: ${code}`).join("")}\n`,
    );
  });

  it.each(ATTACKS.map((attack) => [attack.name, attack.code, attack] as const))(
    "%s: %s, and the next honest version gets there",
    async (_name, _code, { run, mend }) => {
      await run(stage);
      await stage.intact();
      mend?.(stage);
      await stage.recovers();
      expect(stage.evilArrived()).toBe(false);
    },
    120_000,
  );
});
