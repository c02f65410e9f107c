import { describe, expect, test } from "vitest";
import { newPartClass, partClasses } from "./part-shapes.js";
import { cameraConditions, isCameraConditionName } from "./parts-condition.js";
import { createPartsScene, type PartsFrame } from "./parts-scene.js";

const meanOf = (pixels: Uint8Array): number => pixels.reduce((sum, value) => sum + value, 0) / pixels.length;

describe("parts scene", () => {
  test("a frame is a pure function of seed, index and condition", () => {
    const a = createPartsScene({ seed: 11 });
    const b = createPartsScene({ seed: 11, firstIndex: 5 });
    for (let skipped = 0; skipped < 5; skipped++) a.next();
    b.setCondition("degraded");
    b.at(900);
    b.setCondition("normal");
    expect(a.next()).toEqual(b.next());
    expect(createPartsScene({ seed: 12 }).at(5).pixels).not.toEqual(b.at(5).pixels);
  });

  test("a condition changes the camera, not the part", () => {
    const scene = createPartsScene({ seed: 4 });
    const before = scene.at(17);
    scene.setCondition("degraded");
    const after = scene.at(17);
    expect(after.label).toBe(before.label);
    expect(after.truth.pose).toEqual(before.truth.pose);
    expect(after.truth.condition).toBe("degraded");
    expect(meanOf(after.pixels)).toBeLessThan(0.85 * meanOf(before.pixels));
  });

  test("lamp and dirt of a degraded camera stay where they are, and differ between cameras", () => {
    const lamps = [1, 2, 3].map((seed) => {
      const scene = createPartsScene({ seed, condition: "degraded" });
      const [first, second] = [scene.next(), scene.next()];
      expect(second.truth.camera.lightRad).toBe(first.truth.camera.lightRad);
      return first.truth.camera.lightRad;
    });
    expect(new Set(lamps).size).toBe(3);
    // The same bare belt without any variation shows the dirt alone.
    const still = { ...cameraConditions.ideal, specks: 5, oil: 0.6 };
    const clean = createPartsScene({ seed: 9, condition: "ideal" }).at(0).pixels;
    const dirty = createPartsScene({ seed: 9, condition: still }).at(0).pixels;
    const changed = clean.filter((value, at) => value !== dirty[at]).length;
    expect(changed).toBeGreaterThan(clean.length * 0.1);
  });

  test("labels are balanced, and the new part appears only when asked for", () => {
    const count = (frames: PartsFrame[], label: string) =>
      frames.filter((frame) => frame.label === label).length;
    const known = Array.from({ length: 600 }, (_, index) => createPartsScene({ seed: 2 }).at(index));
    for (const label of partClasses) expect(count(known, label)).toBeGreaterThan(60);
    expect(count(known, newPartClass)).toBe(0);
    const scene = createPartsScene({ seed: 2, newPartShare: 0.5 });
    const mixed = Array.from({ length: 200 }, () => scene.next());
    expect(count(mixed, newPartClass)).toBeGreaterThan(70);
    expect(mixed.find((frame) => frame.label === newPartClass)?.truth.labelIndex).toBe(-1);
  });

  test("part and belt are told apart by their light in the ideal condition", () => {
    const frame = createPartsScene({ seed: 8, condition: "ideal" }).at(3);
    expect(Math.max(...frame.pixels)).toBeGreaterThan(140);
    expect(frame.pixels).toHaveLength(frame.width * frame.height * 3);
  });

  test("names of conditions", () => {
    expect(isCameraConditionName("degraded")).toBe(true);
    expect(isCameraConditionName("toString")).toBe(false);
    for (const [name, condition] of Object.entries(cameraConditions)) expect(condition.name).toBe(name);
  });

  test("a frame takes at most 2 ms", () => {
    const scene = createPartsScene({ seed: 1, condition: "degraded" });
    for (let warm = 0; warm < 100; warm++) scene.next();
    const started = process.cpuUsage();
    for (let frame = 0; frame < 200; frame++) scene.next();
    const { user } = process.cpuUsage(started);
    console.log(`parts frame: ${(user / 200_000).toFixed(2)} ms`);
    expect(user / 200_000).toBeLessThan(2);
  });
});
