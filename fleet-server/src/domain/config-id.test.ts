import { sha256Hex } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { configIdOf } from "./config-id.js";

describe("the id of a configuration", () => {
  it("is the same in whatever order the fields are written, at any depth", () => {
    const one = { randomShare: 0.1, limits: { night: { bytes: 1, frames: [{ a: 1, b: 2 }] }, day: null } };
    const other = { limits: { day: null, night: { frames: [{ b: 2, a: 1 }], bytes: 1 } }, randomShare: 0.1 };
    expect(configIdOf(other)).toBe(configIdOf(one));
    expect(configIdOf(one)).toMatch(/^cfg_[0-9a-f]{16}$/);
  });

  it.each([
    [{ a: { b: 1 } }, { a: { b: 2 } }],
    [{ a: { b: 1 } }, { b: { a: 1 } }],
    [{ a: [1, 2] }, { a: [2, 1] }],
    [{ a: [{ b: 1 }] }, { a: { b: 1 } }],
    [{ a: null }, {}],
  ])("differs for %j and %j", (one, other) => {
    expect(configIdOf(one)).not.toBe(configIdOf(other));
  });

  it("of one without inner objects is the hash of its fields by name", () => {
    const bytes = new TextEncoder().encode('{"predictionsIntervalSeconds":5,"randomShare":0.1}');
    expect(configIdOf({ randomShare: 0.1, predictionsIntervalSeconds: 5 })).toBe(
      `cfg_${sha256Hex(bytes).slice(0, 16)}`,
    );
  });
});
