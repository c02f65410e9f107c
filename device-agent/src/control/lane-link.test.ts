import { describe, expect, it } from "vitest";
import type { PackageToRun } from "../ipc.js";
import { parseLaneSpecs } from "../lane-spec.js";
import { forgetHost, type LaneLink, laneLinks, providerToBlame, ranBeside, suspectsOf } from "./lane-link.js";
import type { HostCrash } from "./supervisor.js";

const SHA = "a".repeat(64);

function lanes(): LaneLink[] {
  return [...laneLinks(parseLaneSpecs(["a=simulator:parts", "b=simulator:parts"])).values()];
}
function crash(change: Partial<HostCrash> = {}): HostCrash {
  return {
    reason: "SIGSEGV",
    wasReady: true,
    unresponsive: false,
    inferring: 0,
    stuckInference: false,
    stuckLane: undefined,
    frames: [],
    ...change,
  };
}
function toRun(...names: string[]): PackageToRun {
  const providers = names.map((executionProvider) => ({ executionProvider, variant: "fp32" }));
  return { directory: "/", packageSha256: SHA, providers };
}
function runs(link: LaneLink, executionProvider: string): void {
  const [model, variant] = ["parts", "fp32"];
  link.running = { model, version: 1, packageSha256: SHA, variant, executionProvider, since: 0 };
}

describe("suspectsOf", () => {
  const names = (change: Partial<HostCrash>, links = lanes()): string[] =>
    suspectsOf(crash(change), links).map(({ spec }) => spec.name);
  it.each([
    ["the lane whose run was stuck", { stuckLane: "b", frames: [{ lane: "a", hashes: ["1"] }] }, ["b"]],
    ["the lane that had a frame running", { frames: [{ lane: "a", hashes: ["1"] }] }, ["a"]],
    ["all where nothing ran", {}, ["a", "b"]],
    ["none where another program's inference ran", { inferring: 1 }, []],
    ["none where that was stuck", { inferring: 1, stuckInference: true }, []],
  ])("are %s", (_, change, wanted) => {
    expect(names(change)).toEqual(wanted);
  });

  it("are those that change their model as well", () => {
    const links = lanes();
    links[1]!.activating = toRun("cpu");
    expect(names({ frames: [{ lane: "a", hashes: ["1"] }] }, links)).toEqual(["a", "b"]);
  });
});

describe("ranBeside", () => {
  it.each([
    ["another lane's stuck run", { stuckLane: "a" }, true],
    ["its own stuck run", { stuckLane: "b", frames: [{ lane: "a", hashes: ["1"] }] }, false],
    ["another lane's frame", { frames: [{ lane: "a", hashes: ["1"] }] }, true],
    ["its own frame alone", { frames: [{ lane: "b", hashes: ["1"] }] }, false],
    ["another program's inference", { inferring: 1 }, true],
    ["nothing", {}, false],
  ])("knows %s", (_, change, wanted) => {
    expect(ranBeside(crash(change), "b")).toBe(wanted);
  });
});

describe("providerToBlame", () => {
  const frames = [{ lane: "a", hashes: ["1"] }];
  it("is the one that had a frame, unless that is the processor or the end came from outside", () => {
    const [a, b] = lanes() as [LaneLink, LaneLink];
    runs(a, "webgpu");
    runs(b, "webgpu");
    expect(providerToBlame(a, crash({ frames }), 0)?.provider).toMatchObject({ executionProvider: "webgpu" });
    expect(providerToBlame(b, crash({ frames }), 0)).toBeUndefined();
    expect(providerToBlame(a, crash({ frames, reason: "SIGKILL" }), 0)).toBeUndefined();
    expect(providerToBlame(a, crash({ frames, reason: "SIGKILL", unresponsive: true }), 0)).toBeDefined();
    runs(a, "cpu");
    expect(providerToBlame(a, crash({ frames }), 0)).toBeUndefined();
  });

  it("is the one that was being loaded, so that a driver that ends each host is left in the end", () => {
    const [a] = lanes() as [LaneLink];
    a.starting = toRun("cuda", "cpu");
    const early = { wasReady: false };
    expect(providerToBlame(a, crash(early), 1)?.provider.executionProvider).toBe("cuda");
    expect(providerToBlame(a, crash({ ...early, reason: "SIGKILL" }), 1)).toBeUndefined();
    expect(providerToBlame(a, crash({ ...early, reason: "SIGKILL" }), 3)).toBeDefined();
    a.starting = toRun("cpu");
    expect(providerToBlame(a, crash(early), 3)).toBeUndefined();
    a.activating = toRun("webgpu", "cpu");
    expect(providerToBlame(a, crash(), 0)?.provider.executionProvider).toBe("webgpu");
    forgetHost(a);
    expect(providerToBlame(a, crash(), 0)).toBeUndefined();
  });
});
