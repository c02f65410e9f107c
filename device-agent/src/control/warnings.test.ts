import type { EventData } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { systemClock } from "../clock.js";
import { createAgentLog } from "../log.js";
import { Warnings } from "./warnings.js";

function warnings(): { warnings: Warnings; lines: [number, string, string][]; events: EventData[] } {
  const lines: [number, string, string][] = [];
  const events: EventData[] = [];
  const write = (line: string): void => {
    const { level, code, msg } = JSON.parse(line) as { level: number; code: string; msg: string };
    lines.push([level, code, msg]);
  };
  const log = createAgentLog({ level: "info", write });
  return { warnings: new Warnings(systemClock, log, (event) => events.push(event)), lines, events };
}

const WARN = 40;
const INFO = 30;

describe("Warnings", () => {
  it("says in the log when the trouble of each lane begins and ends, and tells the fleet once of all of them", () => {
    const { warnings: all, lines, events } = warnings();
    all.raise("source_failed", "front: no camera", "warning", "front");
    all.raise("source_failed", "back: no camera", "warning", "back");
    all.raise("source_failed", "back: still no camera", "warning", "back");
    all.clear("source_failed", "front");
    all.clear("source_failed", "front");
    all.clear("source_failed", "back");
    expect(lines).toEqual([
      [WARN, "source_failed", "front: no camera"],
      [WARN, "source_failed", "back: no camera"],
      [INFO, "source_failed", "is over: front: no camera"],
      [INFO, "source_failed", "is over: back: still no camera"],
    ]);
    expect(events.map((event) => event.type === "warning" && event.active)).toEqual([true, false]);
  });

  it("logs by severity, again where it grew", () => {
    const { warnings: all, lines } = warnings();
    all.raise("storage_failed", "the disk is full");
    all.raise("storage_failed", "the disk is full", "error");
    all.clear("storage_failed");
    expect(lines.map(([level]) => level)).toEqual([WARN, 50, INFO]);
  });
});
