import { cpSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import {
  FieldloopError,
  manifestFiles,
  packageTargetPath,
  type Assignment,
  type DeploymentState,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { serveRange, TestFleet, until } from "../testing/fleet.test.kit.js";
import { scratchFolder, writeTestPackage } from "../testing/package.test.kit.js";
import { makeTufKey } from "../testing/tuf-keys.test.kit.js";
import { SETTLED, TestDevice } from "../testing/updater.test.kit.js";
import type { PersistObserver } from "./durable.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let fleet: TestFleet;
let device: TestDevice | undefined;

beforeEach(async () => {
  folder = await scratchFolder();
  await mkdir(join(folder.path, "state"));
  fleet = new TestFleet();
  await fleet.start();
});
afterEach(async () => {
  await device?.stop();
  device = undefined;
  await fleet.stop();
  await folder.remove();
});

function makeDevice(directory = join(folder.path, "state"), onPersist?: PersistObserver): TestDevice {
  const updater = { times: { trustRetryMinMs: 5 } };
  return new TestDevice({ fleet, directory, updater, ...(onPersist ? { onPersist } : {}) });
}

async function makePackage(version: number, options: { goldenError?: number } = {}): Promise<ModelPackage> {
  return writeTestPackage(join(folder.path, `package-${version}`), { version, ...options });
}

/** A device on which version 1 is active. */
async function withVersionOne(): Promise<{ device: TestDevice; first: string }> {
  const pkg = await makePackage(1);
  device = await makeDevice().start();
  await device.follow(await fleet.publish(pkg, "d1"));
  await device.settled();
  expect(device.last()?.state).toBe("active");
  return { device, first: pkg.packageSha256 };
}

describe("Updater", { timeout: 120_000 }, () => {
  it("installs from nothing, then goes through every state once and keeps the version before", async () => {
    const { device: d, first } = await withVersionOne();
    const second = await makePackage(2);
    await d.follow(await fleet.publish(second, "d2"), 2);
    await until(() => d.last()?.deployment === "d2" && d.last()?.state === "active", "version 2 is active");
    expect(d.states()).toEqual([
      ...[
        "offered",
        "downloading",
        "verifying",
        "installed",
        "self_testing",
        "activating",
        "probation",
        "active",
      ],
    ]);
    expect(d.running).toBe(second.packageSha256);
    expect(d.updater.previous?.packageSha256).toBe(first);
    expect(readdirSync(join(folder.path, "state", "packages")).sort()).toEqual(
      [first, second.packageSha256].sort(),
    );
    const reused = d.events.find(
      ({ state, deployment }) => state === "verifying" && deployment === "d2",
    )!.measured;
    expect(reused["bytesReused"]).toBeGreaterThan(0);
  });

  type Attack = (pkg: ModelPackage, assignment: Assignment) => Assignment | Promise<Assignment>;
  const tamper =
    (file: string, change: (bytes: Buffer) => Buffer): Attack =>
    async (pkg, assignment) => {
      const named = [...manifestFiles(pkg.manifest), { file: "manifest.json", sha256: pkg.packageSha256 }];
      const { sha256 } = named.find((candidate) => candidate.file === file)!;
      const bytes = change(await readFile(join(pkg.dir, file)));
      fleet.tampered.set(sha256, (response, range) => serveRange(response, bytes, range));
      return assignment;
    };
  const flip = (bytes: Buffer): Buffer => {
    const copy = Buffer.from(bytes);
    copy[copy.length >> 1]! ^= 1;
    return copy;
  };
  const attacks: [string, Attack, DeploymentState, string][] = [
    ["a model with one bit flipped", tamper("fp32.onnx", flip), "rejected", "package_hash_mismatch"],
    ["a manifest with one bit flipped", tamper("manifest.json", flip), "rejected", "package_hash_mismatch"],
    [
      "a longer model",
      tamper("fp32.onnx", (bytes) => Buffer.concat([bytes, bytes])),
      "failed",
      "download_length_mismatch",
    ],
    [
      "a golden file of zeros",
      tamper("golden/out.bin", (bytes) => Buffer.alloc(bytes.length)),
      "rejected",
      "package_hash_mismatch",
    ],
    [
      "one that the targets keys know nothing of",
      (pkg, assignment) => {
        delete fleet.tuf.targets.targets[packageTargetPath(pkg.manifest.model, 2)];
        fleet.tuf.publishTargets();
        return assignment;
      },
      "rejected",
      "trust_target_unknown",
    ],
    [
      "one that a stranger vouches for",
      (pkg) => {
        fleet.tuf.signers.set("targets", [makeTufKey()]);
        return fleet.publish(pkg, "d2");
      },
      "rejected",
      "trust_signature_insufficient",
    ],
    [
      "one whose targets were altered",
      async (pkg) => {
        const assignment = await fleet.publish(pkg, "d2");
        fleet.tuf.edit("targets", ({ signed }) => (signed["expires"] = "2999-01-01T00:00:00Z"));
        return assignment;
      },
      "rejected",
      "trust_signature_insufficient",
    ],
    [
      "one whose name the targets keys gave to another package",
      async (pkg) => {
        const assignment = await fleet.publish(pkg, "d2");
        fleet.vouch(await makePackage(3), pkg.manifest.model, 2);
        return assignment;
      },
      "rejected",
      "package_hash_mismatch",
    ],
    [
      "one under another number than it was vouched for",
      (_, assignment) => ({ ...assignment, version: 9 }),
      "rejected",
      "trust_target_unknown",
    ],
    [
      "one that says another model in its targets than by its name",
      async (pkg) => {
        const assignment = await fleet.publish(pkg, "d2");
        const path = packageTargetPath(pkg.manifest.model, 2);
        const about = fleet.tuf.targets.targets[path]!["custom"] as { fieldloop: { model: string } };
        about.fieldloop.model = "other";
        fleet.tuf.publishTargets();
        return assignment;
      },
      "rejected",
      "trust_target_mismatch",
    ],
    [
      "one that is made for another device class",
      (pkg) => fleet.publish(pkg, "d2", { deviceClasses: ["jetson-orin"] }),
      "rejected",
      "device_class_mismatch",
    ],
    [
      "files that are not there",
      (pkg, assignment) => {
        const answer404 = (response: ServerResponse): void => void response.writeHead(404).end();
        fleet.tampered.set(manifestFiles(pkg.manifest)[0]!.sha256, answer404);
        return assignment;
      },
      "failed",
      "download_failed",
    ],
  ];
  it.each(attacks)(
    "never activates %s, says why, and keeps the old version",
    async (_, attack, state, code) => {
      const { device: d, first } = await withVersionOne();
      const second = await makePackage(2);
      const assignment = await attack(second, await fleet.publish(second, "d2"));
      await d.follow(assignment, 2);
      await until(() => d.states().some((name) => SETTLED.has(name)), "the deployment ends");
      expect(d.last()?.state).toBe(state);
      if (code !== "") expect(d.last()?.error?.code).toBe(code);
      expect(d.last()?.error).toBeDefined();
      expect(d.running).toBe(first);
      expect(d.updater.toRun?.packageSha256).toBe(first);
      expect(d.activated).toEqual([first]);
      await until(
        () => readdirSync(join(folder.path, "state", "packages")).join() === first,
        "only the old is installed",
      );
      await until(
        () => readdirSync(join(folder.path, "state", "staging")).length === 0,
        "nothing is left of it",
      );
    },
  );

  it("does not activate a package whose golden case fails", async () => {
    const { device: d, first } = await withVersionOne();
    d.selfTests = true;
    await d.follow(await fleet.publish(await makePackage(2, { goldenError: 1 }), "d2"), 2);
    await until(() => d.states().some((name) => SETTLED.has(name)), "the deployment ends");
    expect(d.last()).toMatchObject({ state: "failed", error: { code: "golden_case_failed" } });
    expect(d.running).toBe(first);
  });

  it("keeps the old version when the host refuses the new one", async () => {
    const { device: d, first } = await withVersionOne();
    d.activationError = new FieldloopError("model_load_failed", "no");
    await d.follow(await fleet.publish(await makePackage(2), "d2"), 2);
    await until(() => d.states().some((name) => SETTLED.has(name)), "the deployment ends");
    expect(d.last()).toMatchObject({ state: "failed", error: { code: "model_load_failed" } });
    expect(d.updater.toRun?.packageSha256).toBe(first);
  });

  it("returns to the old version when the host crashes twice, or too many frames fail, in probation", async () => {
    const { device: d, first } = await withVersionOne();
    d.predicting = false;
    for (const [version, harm] of [
      [2, () => [d.updater.noteHostCrash(), d.updater.noteHostCrash()]],
      [3, () => [d.updater.noteFramesFailed(30)]],
    ] as const) {
      const deployment = `d${version}`;
      await d.follow(await fleet.publish(await makePackage(version), deployment), version);
      await until(() => d.states(deployment).includes("probation"), "probation");
      expect(d.updater.previous?.packageSha256).toBe(first);
      await until(() => {
        harm();
        return d.states(deployment).includes("rolled_back");
      }, "rolled back");
      expect(d.last()?.error?.code).toBe("probation_failed");
      expect(d.running).toBe(first);
    }
  });

  it("cancels the deployment in hand for a newer one", async () => {
    const { device: d } = await withVersionOne();
    const second = await makePackage(2);
    fleet.tampered.set(manifestFiles(second.manifest)[0]!.sha256, () => undefined);
    await d.follow(await fleet.publish(second, "d2"), 2);
    await until(
      () => fleet.requests.some(({ path }) => path.endsWith(manifestFiles(second.manifest)[0]!.sha256)),
      "it downloads",
    );
    const third = await makePackage(3);
    await d.follow(await fleet.publish(third, "d3"), 3);
    await until(() => d.states("d3").includes("active"), "version 3 is active");
    expect(d.states().at(-1)).toBe("cancelled");
    expect(d.running).toBe(third.packageSha256);
  });

  it("loses neither a step nor a newer revision of the desired state where both are written at once", async () => {
    const { device: d } = await withVersionOne();
    const second = await fleet.publish(await makePackage(2), "d2");
    let revision = 1;
    await d.follow(second, ++revision);
    while (!SETTLED.has(d.states().at(-1) ?? "")) await d.follow(second, ++revision);
    expect(d.states()).toEqual([
      "offered",
      "downloading",
      "verifying",
      "installed",
      "self_testing",
      "activating",
      "probation",
      "active",
    ]);
    expect(revision).toBeGreaterThan(5);
    expect(d.updater.revisionFloor).toBe(revision);
    const path = join(folder.path, "state", "deployment.json");
    const file = JSON.parse(readFileSync(path, "utf8")) as { active: unknown; deployment: { state: string } };
    expect(file).toMatchObject({
      revisionFloor: revision,
      active: { version: 2 },
      deployment: { state: "active" },
    });
  });

  it("goes on where the download was cut, at every offset, without fetching twice what it has", async () => {
    const { device: d } = await withVersionOne();
    const second = await makePackage(2);
    const assignment = await fleet.publish(second, "d2");
    const model = manifestFiles(second.manifest).find(({ file }) => file === "fp32.onnx")!;
    const bytes = await readFile(join(second.dir, model.file));
    let travelled = 0;
    const starts: number[] = [];
    const step = Math.ceil(bytes.length / 7);
    fleet.tampered.set(model.sha256, (response, range) => {
      const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
      const end = Math.min(from + step, bytes.length);
      travelled += end - from;
      starts.push(from);
      const status = from === 0 ? 200 : 206;
      response.writeHead(status, {
        "content-length": bytes.length - from,
        "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
      });
      response.write(bytes.subarray(from, end));
      setTimeout(() => (end === bytes.length ? response.end() : response.destroy()), 5);
    });
    await d.follow(assignment, 2);
    await until(() => d.states().includes("active"), "version 2 is active");
    // What was written to a socket as it closed may not have arrived: a piece of it goes once more, never the whole.
    expect(travelled).toBeLessThan(bytes.length + 3 * step);
    expect(starts.length).toBeGreaterThanOrEqual(7);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
  });

  const stops: DeploymentState[] = [
    "offered",
    "downloading",
    "verifying",
    "installed",
    "self_testing",
    "activating",
    "probation",
    "active",
  ];
  it.each(stops)("ends on a whole version after a stop in %s", async (stopAt) => {
    const { device: before, first } = await withVersionOne();
    await before.updater.stop();
    const second = await makePackage(2);
    const assignment = await fleet.publish(second, "d2");
    // The state folder as it is on disk at this moment is what a power cut leaves.
    const cut = join(folder.path, "cut");
    const doomed = makeDevice(undefined, (point, phase) => {
      if (phase === "before" || !point.startsWith("state:")) return;
      const file = readFileSync(join(folder.path, "state", "deployment.json"), "utf8");
      const { deployment } = JSON.parse(file) as { deployment: { assignment: Assignment; state: string } };
      if (deployment.assignment.deployment !== "d2" || deployment.state !== stopAt || existsSync(cut)) return;
      cpSync(join(folder.path, "state"), cut, { recursive: true });
    });
    await doomed.start();
    await doomed.follow(assignment, 2);
    await until(
      () => doomed.last()?.deployment === "d2" && doomed.last()?.state === "active",
      `it passes ${stopAt}`,
    );
    await doomed.updater.stop();
    device = await makeDevice(cut).start();
    const atStart = device.startedWith;
    expect(atStart).toBe(["probation", "active"].includes(stopAt) ? second.packageSha256 : first);
    expect(existsSync(join(cut, "packages", atStart!, "manifest.json"))).toBe(true);
    expect(device.events[0]).toMatchObject({ deployment: "d2", state: stopAt });
    const d = device;
    const feed = setInterval(() => d.updater.notePredictions(second.packageSha256, 10), 5);
    await until(() => d.last()?.state === "active", "version 2 is active");
    clearInterval(feed);
    expect(d.updater.toRun?.packageSha256).toBe(second.packageSha256);
  });

  it("gives up an activation in which the agent stopped twice, and runs the old version", async () => {
    const { device: d, first } = await withVersionOne();
    await d.updater.stop();
    const path = join(folder.path, "state", "deployment.json");
    const second = await makePackage(2);
    const assignment = await fleet.publish(second, "d2");
    const file = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
    file["deployment"] = { assignment, state: "activating", attempts: 1 };
    writeFileSync(path, JSON.stringify(file));
    device = await makeDevice().start();
    await device.settled();
    expect(device.last()).toMatchObject({ state: "failed", error: { code: "host_crashed" } });
    expect(device.updater.toRun?.packageSha256).toBe(first);
  });

  it("starts with nothing, and says so, when its file was truncated", async () => {
    const { device: d } = await withVersionOne();
    await d.updater.stop();
    const path = join(folder.path, "state", "deployment.json");
    truncateSync(path, 40);
    device = await makeDevice().start();
    expect(device.updater.toRun).toBeUndefined();
    expect(existsSync(`${path}.corrupt`)).toBe(true);
  });
});
