import { FieldloopError } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { parseLaneSpec, parseLaneSpecs } from "./lane-spec.js";
import { SOURCE_FORMS } from "./source-parts.js";
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

  it("reads devices and streams", () => {
    expect(parseSourceSpec("camera:1")).toEqual({
      ...{ kind: "camera", device: "/dev/video1", fps: 15, width: 640, height: 480 },
      ...{ format: "mjpeg", drop: "oldest" },
    });
    expect(parseSourceSpec("tcp:[::1]:9000?columns=x, y&gap=5&missing=0")).toMatchObject({
      ...{ kind: "tcp", host: "::1", port: 9000 },
      rows: { format: "ndjson", columns: ["x", "y"], gap: 5, missing: 0 },
    });
    expect(parseSourceSpec("tcp-listen:0.0.0.0:9000")).toMatchObject({ host: "0.0.0.0", port: 9000 });
    expect(parseSourceSpec("tcp-listen:9000")).toMatchObject({ host: "127.0.0.1", port: 9000 });
    expect(parseSourceSpec("mqtt://u:p%40@broker:1884/plant/+/temp/#?qos=1")).toMatchObject({
      ...{ url: "mqtt://broker:1884", topic: "plant/+/temp/#", qos: 1, username: "u", password: "p@" },
    });
    expect(parseSourceSpec("audio:hw:1,0?hz=16000")).toMatchObject({
      input: "alsa",
      name: "hw:1,0",
      hz: 16_000,
    });
    expect(parseSourceSpec("audio:/a/b.wav")).toMatchObject({ input: "file", drop: "oldest" });
    expect(parseSourceSpec("csv:/x.csv")).toMatchObject({ drop: "wait", follow: false, pace: "none" });
  });

  it.each([
    "mqtt://u:s3cret@broker/t",
    "mqtt:mqtts://u:s3cret@broker:8883/t",
    "rtsp://u:s3cret@cam/live?key=s3cret",
  ])("leaves the secrets of %s out of its name", (text) => {
    expect(sourceName(parseSourceSpec(text))).not.toContain("s3cret");
    expect(() => parseSourceSpec(`${text}${text.includes("?") ? "&" : "?"}drop=maybe`)).toThrow(
      /^(?!.*s3cret)/,
    );
  });

  it("knows every form that help texts show", () => {
    for (const form of SOURCE_FORMS) {
      const example = form
        .replace(/URL\/TOPIC/, "mqtt://h/t")
        .replace(/^rtsp:URL/, "rtsp:rtsp://h/s")
        .replace("HOST:PORT", "h:1")
        .replace("PORT", "1")
        .replaceAll(/alsa:DEVICE\|pulse:DEVICE\|FILE|PATH\|-|PATH|FILE/g, "/p")
        .replaceAll(/\|[^&]*/g, "");
      expect(() => parseSourceSpec(example), example).not.toThrow();
    }
  });

  it.each([
    ["", "source_unknown"],
    ["camera", "source_unknown"],
    ["camera:/etc/passwd", "invalid_argument"],
    ["camera:/dev/../etc/passwd", "invalid_argument"],
    ["camera:0?format=h264", "invalid_argument"],
    ["rtsp://", "invalid_argument"],
    ["rtsp:http://host/stream", "invalid_argument"],
    ["rtsp:rtsp://host/it's", "invalid_argument"],
    ["rtsp:rtsp://u:p@host/s?login=/f", "invalid_argument"],
    ["audio:", "invalid_argument"],
    ["audio:/a.wav?hz=0", "invalid_argument"],
    ["csv:-?follow=1", "invalid_argument"],
    ["csv:/a?follow=1&loop=1", "invalid_argument"],
    ["csv:/a?columns=", "invalid_argument"],
    ["csv:/a?missing=guess", "invalid_argument"],
    ["tcp:9000", "invalid_argument"],
    ["tcp:host:0", "invalid_argument"],
    ["tcp:host:70000", "invalid_argument"],
    ["tcp:host:1?format=xml", "invalid_argument"],
    ["tcp-listen:host name:1", "invalid_argument"],
    ["mqtt:host/topic", "invalid_argument"],
    ["mqtt:mqtt://host", "invalid_argument"],
    ["mqtt:mqtt://host/a/#/b", "invalid_argument"],
    ["mqtt:mqtt://host/a+", "invalid_argument"],
    ["mqtt:mqtt://host/%zz", "invalid_argument"],
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

describe("parseLaneSpec", () => {
  it("takes a lane's options out of those of its source", () => {
    expect(parseLaneSpec("folder:/a?fps=2")).toMatchObject({
      ...{ name: "main", model: null, priority: 50, rateMax: undefined, batch: 2 },
      source: { kind: "folder", path: "/a", fps: 2 },
    });
    expect(
      parseLaneSpec("door=rtsp:rtsp://cam/live?channel=1&model=people&priority=90&rate=5&batch=4&fps=10"),
    ).toMatchObject({
      ...{ name: "door", model: "people", priority: 90, rateMax: 5, batch: 4 },
      source: { kind: "rtsp", url: "rtsp://cam/live?channel=1", fps: 10 },
    });
    expect(parseLaneSpec("folder:/a=b?loop=0")).toMatchObject({ name: "main", source: { path: "/a=b" } });
  });

  it.each([
    ["Door=folder:/a", "lane name"],
    ["=folder:/a", "lane name"],
    ["a=folder:/a?priority=101", "priority"],
    ["a=folder:/a?rate=0", "rate"],
    ["a=folder:/a?batch=0", "batch"],
    ["a=folder:/a?model=Not A Model", "model"],
  ])("refuses %j", (text, what) => {
    expect(() => parseLaneSpec(text)).toThrow(what);
  });

  it("wants names that tell lanes apart", () => {
    expect(parseLaneSpecs(["folder:/a", "b=folder:/a"]).map(({ name }) => name)).toEqual(["main", "b"]);
    expect(() => parseLaneSpecs(["folder:/a", "folder:/b"])).toThrow('two are named "main"');
    expect(() => parseLaneSpecs([])).toThrow("0 of them");
    expect(() => parseLaneSpecs(Array.from({ length: 9 }, (_, at) => `l${at}=folder:/a`))).toThrow(
      "9 of them",
    );
  });
});
