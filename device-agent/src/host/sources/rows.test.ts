import type { FieldloopError } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../../limits.js";
import { parseSourceSpec, type RowReading } from "../../source-spec.js";
import { LineSplitter } from "./line-splitter.js";
import { RowLedger } from "./row-frames.js";
import { RowStream } from "./row-stream.js";
import { parseRowTime } from "./row-time.js";
import type { SourceContext, SourceFrame, WindowShape } from "./source.js";
import { rowsOf, SourceStage, windowsOf } from "./sources.test.kit.js";

function readingOf(spec: string): RowReading {
  const parsed = parseSourceSpec(spec);
  if (!("rows" in parsed)) throw new Error("no rows");
  return parsed.rows;
}

interface Read {
  readonly frames: SourceFrame[];
  readonly ledger: RowLedger;
  readonly troubles: (FieldloopError | undefined)[];
}

/** Reads a whole stream, in pieces of the given sizes. */
function readAll(
  spec: string,
  stream: Buffer | string,
  options: { sizes?: readonly number[]; window?: WindowShape; columns?: readonly string[] } = {},
): Read {
  const stage = new SourceStage();
  stage.window = options.window;
  stage.columns = options.columns;
  const context: SourceContext = stage.context;
  const ledger = new RowLedger(context, "Read");
  const rows = new RowStream(readingOf(spec), context, ledger);
  const bytes = Buffer.from(stream);
  const sizes = options.sizes ?? [bytes.length || 1];
  const frames: SourceFrame[] = [];
  for (let at = 0, step = 0; at < bytes.length; step++) {
    const size = sizes[step % sizes.length]!;
    frames.push(...rows.push(Buffer.from(bytes.subarray(at, at + size))));
    at += size;
  }
  frames.push(...rows.end());
  return { frames, ledger, troubles: stage.troubles };
}

const sizesArbitrary = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 });

describe("windows of a stream", () => {
  const values = Array.from({ length: 200 }, (_, at) => [at + 0.5, 7 - at]);

  it.each([
    ["csv:-?length=16&hop=5", values.map((row) => row.join(",")).join("\r\n")],
    ["csv:-?length=16&hop=5&columns=x,y", `t,x,y\n${values.map((row) => `1,${row.join(",")}`).join("\n")}\n`],
    ["ndjson:-?length=16&hop=5", values.map(([x, y]) => JSON.stringify({ x, y })).join("\n")],
    ["ndjson:-?length=16&hop=5&columns=0,1", values.map((row) => JSON.stringify(row)).join("\n")],
    [
      "tcp:h:1?format=float32&length=16&hop=5&columns=x,y",
      Buffer.from(Float32Array.from(values.flat()).buffer),
    ],
  ])("are the same however %s is cut into pieces", (spec, stream) => {
    const expected = Array.from({ length: Math.floor((200 - 16) / 5) + 1 }, (_, at) =>
      values.slice(at * 5, at * 5 + 16).flat(),
    );
    fc.assert(
      fc.property(sizesArbitrary, (sizes) => {
        const { frames, ledger } = readAll(spec, stream, { sizes });
        expect(windowsOf(frames)).toEqual(expected);
        expect(frames.map(({ fresh }) => fresh ?? false).indexOf(true)).toBe(0);
        expect(ledger).toMatchObject({ rows: 200, malformedRows: 0, gaps: 0 });
      }),
      { numRuns: 30 },
    );
  });

  it("cover or skip samples as length and hop say", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 30 }), (length, hop) => {
        const stream = Array.from({ length: 100 }, (_, at) => `${at}\n`).join("");
        const { frames } = readAll(`csv:-?length=${length}&hop=${hop}`, stream);
        const count = Math.floor((100 - length) / hop) + 1;
        expect(windowsOf(frames)).toEqual(
          Array.from({ length: count }, (_, at) => Array.from({ length }, (__, offset) => at * hop + offset)),
        );
      }),
    );
  });

  it("are what the model wants where nothing else is said, and follow it when it changes", () => {
    const window = { length: 2, hop: 2, channels: 3, sampleRateHz: 10 };
    expect(windowsOf(readAll("csv:-", "1,2,3\n4,5,6\n", { window }).frames)).toEqual([[1, 2, 3, 4, 5, 6]]);
    const narrow = readAll("csv:-", "1,2\n", { window });
    expect(narrow.troubles[0]?.message).toContain("say columns=");
    expect(rowsOf(readAll("csv:-?shape=row", "1,2,3\n", { window }).frames)).toEqual([{ 0: 1, 1: 2, 2: 3 }]);
  });

  it("begin anew behind a gap in time, and say so", () => {
    const line = (ms: number): string => JSON.stringify({ t: 1_700_000_000_000 + ms, v: ms });
    const times = [0, 10, 20, 30, 100, 110, 120, 130, 90, 100, 110, 120];
    const { frames, ledger } = readAll(
      "ndjson:-?length=3&hop=1&time=t&hz=100&gap=3",
      times.map(line).join("\n"),
    );
    expect(ledger.gaps).toBe(2);
    expect(windowsOf(frames)).toEqual([
      ...[
        [0, 10, 20],
        [10, 20, 30],
      ],
      ...[
        [100, 110, 120],
        [110, 120, 130],
      ],
      ...[
        [90, 100, 110],
        [100, 110, 120],
      ],
    ]);
    expect(frames.map(({ fresh }) => fresh === true)).toEqual([true, false, true, false, true, false]);
    expect(frames[0]!.time).toBe(1_700_000_000_020);
  });

  it("take several samples out of one message", () => {
    const spec = "ndjson:-?length=4&time=t&hz=100&columns=v";
    const message = (t: number, v: number[]): string => JSON.stringify({ t, v });
    const stream = [message(1_700_000_000, [1, 2]), message(1_700_000_000.02, [3, 4, 5, 6, 7, 8])].join("\n");
    const { frames, ledger } = readAll(spec, stream);
    expect(windowsOf(frames)).toEqual([
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ]);
    expect(ledger.gaps).toBe(0);
    const window = { length: 3, hop: 3, channels: 1, sampleRateHz: 1 };
    expect(windowsOf(readAll("ndjson:-", "[1,2,3,4]\n[5,6]\n", { window }).frames)).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
  });

  it.each([
    ["hold", [1, 1, 3, 4], 0],
    ["skip", [1, 3, 4], 1],
    ["-1", [1, -1, 3, 4], 0],
  ])("meet missing values with %s", (missing, expected, malformed) => {
    const { frames, ledger } = readAll(`csv:-?length=1&missing=${missing}`, "1\nnan\n3\n4\n");
    expect(windowsOf(frames).flat()).toEqual(expected);
    expect(ledger.malformedRows).toBe(malformed);
  });
});

describe("rows of a table", () => {
  it("carry the names of the header, numbers, texts and holes", () => {
    const { frames } = readAll("csv:-", 'id,"size, mm",kind,note\n7,1.5,gear,\n8,2e3,"a ""b"", c",x\n');
    expect(rowsOf(frames)).toEqual([
      { id: 7, "size, mm": 1.5, kind: "gear", note: null },
      { id: 8, "size, mm": 2000, kind: 'a "b", c', note: "x" },
    ]);
  });

  it("get names by position: from the command line, from the model, or none", () => {
    const iris = "5.1,3.5,1.4,0.2\n";
    expect(rowsOf(readAll("csv:-?columns=a,b,c,d", iris).frames)).toEqual([
      { a: 5.1, b: 3.5, c: 1.4, d: 0.2 },
    ]);
    const columns = ["sl", "sw", "pl", "pw"];
    expect(rowsOf(readAll("csv:-", iris, { columns }).frames)).toEqual([
      { sl: 5.1, sw: 3.5, pl: 1.4, pw: 0.2 },
    ]);
    expect(rowsOf(readAll("csv:-?columns=3,0", iris).frames)).toEqual([{ 0: 0.2, 1: 5.1 }]);
    expect(rowsOf(readAll("csv:-?header=0", "a,b\n").frames)).toEqual([{ 0: "a", 1: "b" }]);
    expect(rowsOf(readAll("csv:-?header=1&separator=tab&columns=2", "1\t2\n3\t4\n").frames)).toEqual([
      { "2": 4 },
    ]);
  });

  it("never become an object's prototype", () => {
    const { frames } = readAll("ndjson:-", '{"__proto__":1,"a":2}\n');
    const [row] = rowsOf(frames) as Record<string, unknown>[];
    expect(Object.keys(row!)).toEqual(["a"]);
    expect(Object.getPrototypeOf(row)).toBe(Object.prototype);
  });
});

describe("rows that are no use", () => {
  it.each([
    ["csv:-?length=2&columns=x", "x\n1\nabc\n2\n", '"abc"', "line 3"],
    ["csv:-?length=1&columns=z", "x,y\n1,2\n", 'no column "z", there are x, y', "line 2"],
    ["csv:-", "a,b\n1,2\n1\n", "1 columns, the header has 2", "line 3"],
    ["csv:-", '"a\n', "a quote that does not end", "line 1"],
    ["csv:-?columns=a,b,c", "1,2\n", "wanted a, b, c", "line 1"],
    ["csv:-?time=when", "1,2\n", "say its position", "line 1"],
    ["ndjson:-", "{}\n", "0 columns", "line 1"],
    ["ndjson:-", '{"a":1\n', "is no JSON", "line 1"],
    ["ndjson:-", '"text"\n', "neither an object", "line 1"],
    ["ndjson:-", '{"a":{"b":1}}\n', "an object where a value", "line 1"],
    ["ndjson:-?columns=a,b", '{"a":[1],"b":[1,2]}\n', "different lengths", "line 1"],
    ["ndjson:-?time=t", '{"t":"soon","v":1}\n', '"soon" is no time', "line 1"],
    ["ndjson:-?shape=window", "[1]\n", "no window input", "line 1"],
    ["ndjson:-?length=1048576", JSON.stringify([1, 2, 3, 4, 5]), "windows of", "line 1"],
  ])("%s: %j is told", (spec, stream, what, where) => {
    const { ledger, troubles } = readAll(spec, stream);
    expect(ledger.malformedRows).toBe(1);
    expect(troubles[0]?.code).toBe("row_malformed");
    expect(troubles[0]?.message).toContain(what);
    expect(troubles[0]?.message).toContain(where);
  });

  it("are counted, told once, and forgiven after enough good ones", () => {
    const good = "1\n".repeat(AGENT_LIMITS.rowsHealthy);
    const { ledger, troubles } = readAll("csv:-?length=1", `1\n${"x\n".repeat(50)}${good}`);
    expect(ledger).toMatchObject({ rows: AGENT_LIMITS.rowsHealthy + 1, malformedRows: 50 });
    expect(troubles.map((error) => error?.code)).toEqual(["row_malformed", undefined]);
  });

  it("are survived whatever they are", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(
          "csv:-",
          "ndjson:-",
          "csv:-?length=4&columns=0",
          "ndjson:-?length=4&time=t",
          "tcp:h:1?format=float32&length=2",
        ),
        fc.uint8Array({ maxLength: 400 }),
        sizesArbitrary,
        (spec, bytes, sizes) => {
          for (const { frame } of readAll(spec, Buffer.from(bytes), { sizes }).frames) {
            if (frame.kind === "window")
              expect(frame.samples.every((value) => Number.isFinite(value))).toBe(true);
          }
        },
      ),
    );
    const json = fc.json({ maxDepth: 6 });
    fc.assert(fc.property(json, (text) => void readAll("ndjson:-?length=2", `${text}\n`)));
    readAll("ndjson:-", `${"[".repeat(100_000)}${"]".repeat(100_000)}\n`);
    readAll("csv:-", `${",".repeat(100_000)}\n${'"",'.repeat(100_000)}\n`);
  });
});

describe("LineSplitter", () => {
  it("skips a line without end and holds none of it", () => {
    const tooLong: number[] = [];
    const splitter = new LineSplitter(1000, (line) => tooLong.push(line));
    const lines = [...splitter.push(Buffer.from("\uFEFFa\r\n"))];
    for (let at = 0; at < 2000; at++) lines.push(...splitter.push(Buffer.alloc(64 * 1024, "x")));
    lines.push(...splitter.push(Buffer.from("tail\nb\nc")));
    expect(lines).toEqual(["a", "b"]);
    expect(tooLong).toEqual([2]);
    expect(splitter.lineNumber).toBe(3);
    expect(splitter.end()).toBe("c");
    expect(splitter.end()).toBeUndefined();
  });
});

describe("parseRowTime", () => {
  it.each([
    ["2026-11-20T13:00:00.250Z", 1_795_179_600_250, true],
    ["1795179600.25", 1_795_179_600_250, true],
    [1_795_179_600_250, 1_795_179_600_250, true],
    [1_795_179_600_250_000, 1_795_179_600_250, true],
    [1_795_179_600_250_000_000, 1_795_179_600_250, true],
    ["12.5", 12_500, false],
  ])("reads %j", (value, ms, absolute) => {
    const time = parseRowTime(value);
    expect(time.ms).toBeCloseTo(ms, 0);
    expect(time.absolute).toBe(absolute);
  });
});
