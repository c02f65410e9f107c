import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const MAIN = fileURLToPath(new URL("../main.js", import.meta.url));

function fieldloop(...words: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...words], { encoding: "utf8" });
  return { code: status, out: stdout, err: stderr };
}

describe("fieldloop agent install", () => {
  it("prints the unit that it would write, with what stands behind -- for the agent", () => {
    const { code, out } = fieldloop(
      ...[
        "agent",
        "install",
        "--name",
        "press-3",
        "--source",
        "a=http:8090?priority=80",
        "--source",
        "b=http:8091",
      ],
      ...[
        "--server",
        "https://fleet.example",
        "--enroll",
        "fle_x",
        "--dry-run",
        "--json",
        "--",
        "--threads",
        "2",
      ],
    );
    expect(code).toBe(0);
    const { unit, unitPath } = JSON.parse(out) as { unit: string; unitPath: string };
    expect(unitPath).toBe("/etc/systemd/system/fieldloop-agent-press-3.service");
    expect(unit).toContain(
      "agent --name press-3 --server https://fleet.example --threads 2 --json --source a=http:8090?priority=80 --source b=http:8091 --state ${STATE_DIRECTORY}\n",
    );
    expect(unit).not.toContain("fle_x");
  }, 20_000);

  it.each([
    [["agent", "install", "--name", "x"], "--source"],
    [["agent", "install", "--source", "http:1"], "--name"],
    [["agent", "install", "--name", "x", "--source", "radio:1", "--dry-run"], "source_unknown"],
    [["agent", "install", "--name", "x", "--source", "rtsp://u:p@h/s", "--dry-run"], "login=FILE"],
    [["agent", "--name", "x"], "--source"],
  ])(
    "refuses %j",
    (words, what) => {
      const { code, err } = fieldloop(...words);
      expect(code).toBe(2);
      expect(err).toContain(what);
    },
    20_000,
  );
});
