import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LIMITS, type RolloutRequest } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runHere } from "../testing/command-line.test.kit.js";
import { checkRequest, readRequest } from "./request-file.js";

const CHANGE = { kind: "package", model: "parts", version: 7 };
const TARGET = { group: "lyon" };
let dir: string;
let file: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-cli-request-"));
  file = join(dir, "rollout.json");
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** What `rollout create --print` says of a request in a file, without any server. */
async function printed(request: object, ...args: string[]): Promise<RolloutRequest> {
  await writeFile(file, JSON.stringify(request));
  const { out, err } = await runHere("rollout", "create", "--from", file, "--print", ...args);
  expect(err).toBe("");
  return JSON.parse(out) as RolloutRequest;
}

describe("a request from a file", () => {
  const WHOLE = {
    change: CHANGE,
    target: TARGET,
    name: "spring",
    waves: [{ name: "bench", count: 2, soakSecondsMin: 3600 }, { percent: 100 }],
    gate: { crashRatioMax: null, silentExcessMax: 0.05, confidenceDropMax: 0.2, classShiftMax: 0.3 },
    shadow: { seconds: 60, predictions: 500 },
    probation: { seconds: 60, predictions: 200 },
    retries: { max: 2, delaySeconds: 300 },
    schedule: { windows: [{ days: [1], start: "02:00", minutes: 120 }] },
  };

  it("is taken whole, with every default written out, and prints the same again", async () => {
    const first = await printed(WHOLE);
    expect(first).toMatchObject(WHOLE);
    expect(first.gate).toMatchObject({ falseStopMax: 0.05, passByProof: false, soakSeconds: 10 });
    expect(await printed(first)).toEqual(first);
  });

  it("has the options of the command line over it, and keeps what they do not name", async () => {
    const over = await printed(
      WHOLE,
      ...["parts@8", "--group", "paris", "--frozen", "--soak", "30", "--probation", "5", "--retries", "1"],
      ...["--shadow-cpu", "0.5", "--at", "2026-12-01T02:00Z", "--approve-waves", "2", "--draft"],
    );
    expect(over).toMatchObject({
      change: { ...CHANGE, version: 8 },
      target: { group: "paris", membership: "frozen" },
      name: "spring",
      waves: [
        { name: "bench", approvalBefore: false },
        { percent: 100, approvalBefore: true },
      ],
      gate: { ...WHOLE.gate, soakSeconds: 30 },
      shadow: { ...WHOLE.shadow, cpuShareMax: 0.5 },
      probation: { seconds: 5, predictions: 200 },
      retries: { max: 1, delaySeconds: 300 },
      schedule: { ...WHOLE.schedule, startAt: Date.parse("2026-12-01T02:00Z") },
      start: false,
    });
    expect((await printed(WHOLE, "--config", '{"randomShare":0.1}', "--devices", "a")).change.kind).toBe(
      "config",
    );
  });

  it.each<[object, string[], string]>([
    [{ target: TARGET }, [], "a `change` with --from"],
    [{ change: CHANGE }, [], "a `target` with --from"],
    [{ change: CHANGE, target: TARGET, gates: {} }, [], '"gates" is no field'],
    [{ change: CHANGE, target: TARGET, gate: { soakSecond: 1 } }, [], '"gate.soakSecond" is no field'],
    [{ change: CHANGE, target: { ...TARGET, selector: { tags: {} } } }, [], '"target.selector" is no field'],
    [
      { change: CHANGE, target: TARGET, waves: [{ count: 1 }, { percent: 200 }] },
      [],
      '"waves.1.percent" Too big',
    ],
    [
      { change: CHANGE, target: TARGET, budgets: [{ tag: "a", maxUnavailable: { count: 0 } }] },
      [],
      '"budgets.0.maxUnavailable.count"',
    ],
    [{ change: CHANGE, target: TARGET, waves: [{}] }, [], '"waves.0" Invalid input'],
    [{ change: { kind: "all" }, target: TARGET }, [], '"change.kind"'],
    [{ change: CHANGE, target: TARGET }, ["--priority", "2000"], '"priority" Too big'],
    [{ change: CHANGE, target: TARGET, waves: [{ percent: 100 }] }, ["--approve-waves", "2"], "--from has 1"],
    [{ change: CHANGE, target: { devices: ["a"] } }, ["--frozen"], "--frozen: devices that are named"],
    [{ change: CHANGE, target: TARGET }, ["--shadow-cpu", "0.5"], "--shadow-cpu: there is no shadow"],
    [{ change: CHANGE, target: TARGET }, ["--watch"], "cannot be used with"],
  ])("%j with %j is refused", async (request, args, text) => {
    await writeFile(file, JSON.stringify(request));
    const outcome = await runHere("rollout", "create", "--from", file, "--print", ...args);
    expect(outcome).toMatchObject({ code: 2, out: "", err: expect.stringContaining(text) });
  });

  it("comes from standard input too; what is no JSON object, or too much, is refused", async () => {
    const said = (...chunks: string[]): AsyncIterable<string> =>
      (async function* () {
        yield* chunks;
      })();
    expect(await readRequest("-", said('{"name":', '"ä"}'))).toEqual({ name: "ä" });
    await expect(readRequest("-", said("[]"))).rejects.toThrow("standard input is no JSON object");
    await expect(readRequest("-", said("{"))).rejects.toMatchObject({ code: "invalid_argument" });
    const long = " ".repeat(LIMITS.jsonBodyBytesMax);
    await expect(readRequest("-", said(long, "{}"))).rejects.toMatchObject({ code: "limit_exceeded" });
    await expect(readRequest(join(dir, "none.json"))).rejects.toMatchObject({ code: "not_found" });
  });

  it("keeps what a schema leaves to the caller: tags have any name", () => {
    const target = { selector: { tags: { site: "lyon" } } };
    expect(checkRequest({ change: CHANGE, target })).toMatchObject({ target });
  });
});

describe("options that would be heeded by nobody", () => {
  it.each<[string[], string]>([
    [["parts@7", "--group", "all", "--shadow-cpu", "0.5"], "--shadow-cpu: there is no shadow; give --shadow"],
    [
      ["parts@7", "--group", "all", "--shadow-labels", "5"],
      "--shadow-labels: there is no shadow; give --shadow",
    ],
    [["parts@7", "--devices", "a", "--frozen"], "--frozen: devices that are named are the same for ever"],
    [
      ["--config", '{"randomShare":0.1}', "--group", "all", "--probation", "9"],
      "--probation: a configuration",
    ],
  ])("%j are refused", async (args, text) => {
    const outcome = await runHere("rollout", "create", ...args, "--print");
    expect(outcome).toMatchObject({ code: 2, out: "", err: expect.stringContaining(text) });
  });

  it("are heeded where what they speak of is there", async () => {
    const args = ["--shadow-predictions", "100", "--shadow-cpu", "0.5", "--shadow-labels", "5", "--frozen"];
    const { out } = await runHere("rollout", "create", "parts@7", "--group", "all", ...args, "--print");
    expect(JSON.parse(out)).toMatchObject({
      shadow: { seconds: 0, predictions: 100, cpuShareMax: 0.5 },
      gate: { shadowLabelsMin: 5 },
      target: { group: "all", membership: "frozen" },
    });
  });
});
