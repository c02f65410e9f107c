import type { Assignment } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { laneFor, replaceLane, runningWhere } from "./lanes.js";

const CAMERA = { name: "camera", model: "parts", running: { version: 1 } };
const SPINDLE = { name: "spindle", model: "bearing", running: { version: 2 } };
const ANY = { name: "any", model: null, running: { version: 3 } };

describe("laneFor", () => {
  it.each([
    ["the lane that says so", [ANY, CAMERA, SPINDLE], "bearing", "spindle"],
    ["the first that takes any", [CAMERA, ANY], "bearing", "any"],
    ["main where none does", [CAMERA], "bearing", "main"],
    ["main where nothing was reported yet", [], "bearing", "main"],
  ])("gives %s", (_, lanes, model, wanted) => {
    expect(laneFor(lanes, model)).toBe(wanted);
  });
});

describe("runningWhere", () => {
  it("is what the model's own lane runs, not the first", () => {
    const state = { running: CAMERA.running, lanes: [CAMERA, SPINDLE] };
    expect(runningWhere(state, "bearing")).toEqual({ version: 2 });
    expect(runningWhere(state, "parts")).toEqual({ version: 1 });
    expect(runningWhere(state, "faces")).toBeNull();
  });

  it("is what a device with one source runs, whatever it is", () => {
    expect(runningWhere({ running: CAMERA.running, lanes: [CAMERA] }, "bearing")).toEqual({ version: 1 });
    expect(runningWhere({ running: null, lanes: [] }, "bearing")).toBeNull();
  });
});

describe("replaceLane", () => {
  const assignment = (lane: string, deployment: string): Assignment => ({
    deployment,
    lane,
    model: "parts",
    version: 1,
    packageSha256: "0".repeat(64),
    manifestBytes: 1,
    probation: { seconds: 0, predictions: 0 },
    shadow: null,
    window: null,
    expires: null,
  });

  it("replaces one lane's assignment and keeps the others", () => {
    const kept = [assignment("a", "1"), assignment("b", "2")];
    expect(replaceLane(kept, assignment("a", "3")).map(({ deployment }) => deployment)).toEqual(["2", "3"]);
    expect(replaceLane(kept, assignment("c", "3")).length).toBe(3);
  });

  it("holds no more lanes than a device can have", () => {
    const full = Array.from({ length: 8 }, (_, index) => assignment(`lane-${index}`, `${index}`));
    expect(replaceLane(full, assignment("lane-3", "new")).length).toBe(8);
    expect(() => replaceLane(full, assignment("one-more", "new"))).toThrow("at most 8");
  });
});
