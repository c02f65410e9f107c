import { FieldloopError } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { parseSourceSpec, sourceName } from "./source-spec.js";

describe("parseSourceSpec", () => {
  it("reads every kind with its defaults", () => {
    expect(parseSourceSpec("folder:/data/images")).toEqual({
      kind: "folder",
      path: "/data/images",
      fps: 5,
      loop: true,
      drop: "wait",
    });
    expect(parseSourceSpec("folder:file:///data/a%20b?fps=2.5&loop=0&drop=oldest")).toEqual({
      kind: "folder",
      path: "/data/a b",
      fps: 2.5,
      loop: false,
      drop: "oldest",
    });
    expect(parseSourceSpec("video:/v.mkv?fps=10&pace=none")).toMatchObject({
      kind: "video",
      fps: 10,
      pace: "none",
    });
    expect(parseSourceSpec("http:8090")).toEqual({ kind: "http", port: 8090 });
    expect(parseSourceSpec("simulator:parts")).toMatchObject({
      scene: "parts",
      fps: 15,
      condition: "normal",
      feedback: 0.25,
    });
    expect(parseSourceSpec("simulator:bearing?condition=outer-race:0.8")).toMatchObject({
      fps: 20,
      condition: "outer-race:0.8",
    });
    expect(sourceName(parseSourceSpec("simulator:parts?seed=9"))).toBe("simulator:parts");
  });

  it.each([
    ["", "source_unknown"],
    ["camera", "source_unknown"],
    ["camera:0", "source_unknown"],
    ["rtsp://host/stream", "source_unknown"],
    ["folder:", "invalid_argument"],
    ["folder:/x\0y", "invalid_argument"],
    ["folder:/x?fps=0", "invalid_argument"],
    ["folder:/x?fps=fast", "invalid_argument"],
    ["folder:/x?speed=2", "invalid_argument"],
    ["video:/x?pace=slow", "invalid_argument"],
    ["http:", "invalid_argument"],
    ["http:99999", "invalid_argument"],
    ["http:80.5", "invalid_argument"],
    ["http:8090?loop=1", "invalid_argument"],
    ["simulator:cats", "invalid_argument"],
    ["simulator:parts?feedback=2", "invalid_argument"],
    ["simulator:parts?seed=-1", "invalid_argument"],
  ])("refuses %j with %s", (text, code) => {
    let caught: unknown;
    try {
      parseSourceSpec(text);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(FieldloopError);
    expect((caught as FieldloopError).code).toBe(code);
  });
});
