import { statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { scratchFolder } from "../testing/package.test.kit.js";
import { FrameMark, readFrameMark } from "./frame-mark.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(() => folder.remove());

const HASHES = Array.from({ length: AGENT_LIMITS.laneBatchMax }, (_, at) =>
  at.toString(16).padStart(64, "0"),
);
const never = (error: Error): void => {
  throw error;
};

it("says which frames are in hand, in the room that it took at the start", () => {
  const path = join(folder.path, "frame.mark");
  expect(readFrameMark(path)).toEqual([]);
  const mark = new FrameMark(path, never);
  const { size } = statSync(path);
  mark.begin(HASHES);
  expect(readFrameMark(path)).toEqual(HASHES);
  mark.end();
  expect(readFrameMark(path)).toEqual([]);
  mark.begin(HASHES.slice(0, 1));
  expect(readFrameMark(path)).toEqual(HASHES.slice(0, 1));
  expect(statSync(path).size).toBe(size);
  mark.close();
  // The next host begins with none.
  new FrameMark(path, never).close();
  expect(readFrameMark(path)).toEqual([]);
});

it("tells once where it cannot be written, and keeps nobody from predicting", () => {
  const told: string[] = [];
  for (const path of [join(folder.path, "missing", "frame.mark"), "/dev/full"]) {
    told.length = 0;
    const mark = new FrameMark(path, ({ code, message }) => told.push(`${code}: ${message}`));
    for (let run = 0; run < 3; run++) {
      mark.begin(HASHES.slice(0, 2));
      mark.end();
    }
    mark.close();
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(
      /^storage_failed: Note the frame in hand: (?:ENOENT|ENOSPC).*frames run without it$/,
    );
  }
});
