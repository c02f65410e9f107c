import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  COMMAND_TYPE,
  encodeMessage,
  LIMITS,
  manifestFiles,
  manifestSchema,
  sign,
  UNLIMITED,
  type Assignment,
  type Desired,
  type DeploymentState,
  type ErrorCode,
  type ModelVersion,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AckRecorder } from "../kit/acks.js";
import { ArtifactProxy, type Tamper } from "../kit/artifact-proxy.js";
import { writeBrightnessPackage } from "../kit/brightness-package.js";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { assignmentOf, HostileBroker, stolenKey, STRANGER } from "../kit/forger.js";
import { readLedger } from "../kit/ledger.js";
import { FaultProxy } from "../kit/proxy.js";
import { randomOf, testSeed } from "../kit/random.js";
import { writeTinyPackage } from "../kit/tiny-package.js";
import { isThorough } from "../kit/thorough.js";
import { until } from "../kit/wait.js";

/** A device must never run what it should not, must say why it does not, and must go on with what it has. */
const seed = testSeed();
const scratch = scratchFolder("package");
const lines: string[] = [];
/** Two idle cores take a third of it; a busy machine may take longer. */
const TIMEOUT_MS = 300_000;
const STEP_MS = 60_000;
const KILLS = isThorough ? 10 : 4;
const DEVICE = "cam-1";

beforeAll(() => console.log(`FIELDLOOP_TEST_SEED=${seed}`));
afterAll(async () => {
  await endPrograms();
  console.log(lines.join("\n"));
  scratch.remove();
});

interface Site {
  readonly folder: string;
  readonly server: ServerProgram;
  readonly mqtt: FaultProxy;
  readonly artifacts: ArtifactProxy;
  readonly agent: AgentProgram;
  readonly acks: AckRecorder;
  readonly first: ModelVersion;
}

/** A server, one device that runs `tiny@1`, and proxies that may lie between them. */
async function startSite(name: string): Promise<Site> {
  const folder = join(scratch.path, name);
  const acks = new AckRecorder();
  const mqtt = await FaultProxy.open({ onDown: acks.take });
  const server = await ServerProgram.start({ folder, publicMqttUrl: `mqtt://127.0.0.1:${mqtt.port}` });
  mqtt.aim(server.mqttPort);
  await server.client.patch("/api/v1/policies/default", { predictionsIntervalSeconds: 0.2, bytesPerHour: 0 });
  const artifacts = await ArtifactProxy.open(server.url);
  const first = await server.publish(await writeTinyPackage(join(folder, "tiny-1"), { version: 1 }));
  const agent = new AgentProgram({ folder, device: DEVICE, source: "simulator:parts?fps=10&feedback=0" });
  await agent.start({ server: artifacts.url, token: await server.enrolmentToken() });
  const { rollout } = await server.rollOut(first, [DEVICE]);
  expect((await server.settled(rollout, STEP_MS)).state).toBe("succeeded");
  return { folder, server, mqtt, artifacts, agent, acks, first };
}

/** Stops the site and holds the server's books to what the device said last: no prediction is missing, none is there twice. */
async function closeSite(name: string, site: Site, said: string): Promise<void> {
  const { server, mqtt, artifacts, agent, acks } = site;
  await agent.drained();
  await agent.stop();
  const { state } = await until("the device is offline", async () => {
    const view = await server.device(DEVICE);
    return view.online ? undefined : view;
  });
  await server.stop();
  await mqtt.close();
  await artifacts.close();
  const ledger = readLedger(server.dataDir, acks);
  expect(ledger.faults).toEqual([]);
  expect(ledger.devices[0]!.predictions.get(state!.boot)).toBe(state!.counters.predictions);
  lines.push(
    `${name}: ${said}; ${ledger.predictions} predictions in ${ledger.segments} messages, lost 0, doubled 0`,
  );
}

/** The version that runs is the one that ran, and it still answers. */
async function expectRuns(agent: AgentProgram, packageSha256: string): Promise<void> {
  // A host that was ended with its version is on its way.
  await until("a host runs", async () => (await agent.state()).running !== null);
  expect((await agent.state()).running?.packageSha256).toBe(packageSha256);
  await agent.predicts(5);
}

/** Rolls a version out that must not arrive, and returns what the server says about the device. */
async function rollOutInVain(
  site: Site,
  version: ModelVersion,
): Promise<{ state: string; code: string | null }> {
  const { server } = site;
  const { rollout } = await server.rollOut(version, [DEVICE], { seconds: 60, predictions: 1_000 });
  const view = await server.settled(rollout, STEP_MS);
  expect(view.state).toBe("paused");
  await server.client.post(`/api/v1/rollouts/${rollout}/actions`, {
    action: "abort",
    reason: "it failed as it should",
  });
  const { state, errorCode } = (await server.rolloutDevices(rollout))[0]!;
  return { state, code: errorCode };
}

interface Transit {
  readonly what: string;
  readonly which: "manifest" | "variant";
  readonly tamper: Tamper;
  readonly state: DeploymentState;
  readonly code: ErrorCode;
}

/** One that ends too soon is asked for again for half a minute: `faults.test.ts` has it, with shorter times. */
const IN_TRANSIT: readonly Transit[] = [
  {
    what: "a bit of the variant flipped",
    which: "variant",
    tamper: flipBit,
    state: "rejected",
    code: "package_hash_mismatch",
  },
  {
    what: "a bit of the manifest flipped",
    which: "manifest",
    tamper: flipBit,
    state: "rejected",
    code: "package_hash_mismatch",
  },
  {
    what: "the variant longer than it says",
    which: "variant",
    tamper: (bytes) => Buffer.concat([bytes, Buffer.alloc(64)]),
    state: "failed",
    code: "download_length_mismatch",
  },
  {
    what: "the variant gone",
    which: "variant",
    tamper: () => undefined,
    state: "failed",
    code: "download_failed",
  },
];

function flipBit(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy[copy.length >> 1]! ^= 1;
  return copy;
}

describe.concurrent("a package that must not run", () => {
  it(
    "is refused with its code, by whatever it is wrong, and the version before goes on",
    async () => {
      const site = await startSite("faults");
      const { server, agent, artifacts, folder, first } = site;
      const said: string[] = [];

      const second = await server.publish(
        await writeTinyPackage(join(folder, "tiny-2"), { version: 2, seed: 2 }),
      );
      for (const { what, which, tamper, state, code } of IN_TRANSIT) {
        const sha256 = which === "manifest" ? second.packageSha256 : second.manifest.variants[0]!.sha256;
        artifacts.tamper(sha256, tamper);
        const outcome = await rollOutInVain(site, second);
        artifacts.honest();
        expect({ what, ...outcome }).toEqual({ what, state, code });
        await expectRuns(agent, first.packageSha256);
        said.push(`${what}: ${state} ${code}`);
      }

      const golden = await server.publish(
        await writeTinyPackage(join(folder, "tiny-3"), { version: 3, seed: 3, goldenError: 0.5 }),
      );
      expect(await rollOutInVain(site, golden)).toEqual({ state: "failed", code: "golden_case_failed" });
      said.push("wrong answers to its golden case: failed golden_case_failed");
      await expectRuns(agent, first.packageSha256);

      // The graph passes every check: only the field's frames kill the process that runs it.
      const deadly = await server.publish(
        await writeBrightnessPackage(join(folder, "deadly"), { version: 1, deadlyInTheField: true }),
      );
      const { counters } = await agent.state();
      // The first frame may kill the host before it could say that it had activated.
      const outcome = await rollOutInVain(site, deadly);
      expect([
        { state: "rolled_back", code: "probation_failed" },
        { state: "failed", code: "host_crashed" },
        // The gate saw the crash before the device had given the version up.
        { state: "cancelled", code: "cancelled" },
      ]).toContainEqual(outcome);
      said.push(`kills its host in the field (SIGFPE): ${outcome.state} ${outcome.code}`);
      expect((await agent.state()).counters.hostRestarts).toBeGreaterThan(counters.hostRestarts);
      await until(
        "the version before runs",
        async () => (await agent.state()).running?.packageSha256 === first.packageSha256,
      );
      await expectRuns(agent, first.packageSha256);
      const events = await server.client.get<{ items: { data: Record<string, unknown> }[] }>(
        `/api/v1/devices/${DEVICE}/events?type=crash`,
      );
      const crash = events.items[0]?.data;
      expect(crash).toMatchObject({ process: "host", reason: "SIGFPE" });
      // Dead before it answered, the model is not known; never is it the one that ran before.
      expect(["brightness", undefined]).toContain(crash?.["model"]);

      await forgeries(site, second, said);
      await closeSite("packages", site, `${said.length} refused`);
      lines.push(...said.map((line) => `  ${line}`));
    },
    TIMEOUT_MS,
  );

  it(
    "is never half there: kill -9 at any moment of an update ends on the whole old or the whole new version",
    async () => {
      const site = await startSite("update");
      const { server, agent, folder } = site;
      const random = randomOf(seed, 5);
      let running = site.first;
      const killedIn = new Map<string, number>();
      let arrived = 0;
      for (let kill = 0; kill < KILLS; kill++) {
        const number = kill + 2;
        const next = await server.publish(
          await writeTinyPackage(join(folder, `tiny-${number}`), { version: number, seed: number }),
        );
        const { rollout } = await server.rollOut(next, [DEVICE], { seconds: 1, predictions: 10 });
        await reached(agent.stateDir, next.packageSha256, PATH[random.int(PATH.length)]!);
        await new Promise((resolve) => setTimeout(resolve, random.range(0, 40)));
        await agent.kill();
        const onDisk = readDeployment(agent.stateDir);
        killedIn.set(onDisk.state, (killedIn.get(onDisk.state) ?? 0) + 1);
        expectWhole(agent.stateDir, onDisk.runs);
        expect([running.packageSha256, next.packageSha256]).toContain(onDisk.runs);
        await agent.start();
        const view = await server.settled(rollout, STEP_MS);
        const wanted = view.state === "succeeded" ? next : running;
        if (view.state !== "succeeded")
          await server.client.post(`/api/v1/rollouts/${rollout}/actions`, { action: "abort" });
        else arrived++;
        await until(
          "the settled version runs",
          async () => (await agent.state()).running?.packageSha256 === wanted.packageSha256,
        );
        await expectRuns(agent, wanted.packageSha256);
        expectWhole(agent.stateDir, wanted.packageSha256);
        running = wanted;
      }
      await killInEveryProbation(site, running);
      const places = [...killedIn].map(([state, count]) => `${count} ${state}`).join(", ");
      await closeSite(
        "updates",
        site,
        `killed ${KILLS} times (in ${places}), ${arrived} arrived, ${KILLS - arrived} stayed`,
      );
    },
    TIMEOUT_MS,
  );
});

/** A version with which the device never lives long enough: after three starts in its probation it goes back by itself. */
async function killInEveryProbation(site: Site, running: ModelVersion): Promise<void> {
  const { server, agent, folder } = site;
  const number = KILLS + 2;
  const directory = join(folder, `tiny-${number}`);
  const next = await server.publish(await writeTinyPackage(directory, { version: number, seed: number }));
  const { rollout } = await server.rollOut(next, [DEVICE], { seconds: 300, predictions: 10 });
  for (let kill = 0; kill < 3; kill++) {
    await reached(agent.stateDir, next.packageSha256, "probation");
    await until("the candidate runs", async () => (await agent.state()).running?.version === number);
    await agent.kill();
    await agent.start();
  }
  const view = await server.settled(rollout, STEP_MS);
  expect((await server.rolloutDevices(view.rollout))[0]).toMatchObject({
    state: "rolled_back",
    errorCode: "probation_failed",
  });
  await expectRuns(agent, running.packageSha256);
}

/**
 * Desired states that a stranger between server and device makes, with the stolen key of the director: it may direct, and still no
 * device installs what the targets keys have not signed.
 */
async function forgeries(site: Site, signed: ModelVersion, said: string[]): Promise<void> {
  const { server, agent, artifacts, folder, first, mqtt } = site;
  const hostile = new HostileBroker();
  await hostile.start();
  mqtt.aim(hostile.port);
  mqtt.cut();
  const fleetKey = stolenKey(server.dataDir);
  const fourth = await writeTinyPackage(join(folder, "tiny-4"), { version: 4, seed: 4 });
  const desiredOf = (revision: number, assignments: Assignment[]): Desired => ({
    device: DEVICE,
    revision,
    issued: Date.now(),
    assignments,
    sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 },
    predictionsIntervalSeconds: 0.2,
    profileIntervalSeconds: 30,
    limits: UNLIMITED,
    configId: null,
  });
  let revision = (await agent.state()).desiredRevision;
  const honest = assignmentOf(fourth, "honest");
  artifacts.add(fourth.packageSha256, fourth.manifestBytes);
  const huge = hugePackage(fourth);
  artifacts.add(huge.packageSha256, huge.manifestBytes);
  const trusted = { model: first.model, version: first.version };
  const cases: readonly { what: string; assignment: Assignment; code: ErrorCode }[] = [
    {
      what: "another package under the name of a version that is trusted",
      assignment: { ...honest, ...trusted },
      code: "package_hash_mismatch",
    },
    {
      what: "a manifest of another length than is signed",
      // Of a version that does not run: what runs already is not fetched, whatever its length is said to be.
      assignment: {
        ...honest,
        version: signed.version,
        packageSha256: signed.packageSha256,
        manifestBytes: 17,
      },
      code: "package_hash_mismatch",
    },
    {
      what: "a file larger than any may be",
      assignment: { ...assignmentOf(huge, "huge"), ...trusted },
      code: "package_hash_mismatch",
    },
  ];
  for (const [index, { what, assignment, code }] of cases.entries()) {
    const deployment = `forged-${index}`;
    await hostile.desire(desiredOf(++revision, [{ ...assignment, deployment }]), fleetKey);
    const end = await until(
      `"${what}" ends`,
      async () => {
        const current = (await agent.state()).deployment;
        return current?.deployment === deployment && current.error ? current : undefined;
      },
      { timeoutMs: STEP_MS },
    );
    expect({ what, state: end.state, code: end.error?.code }).toEqual({ what, state: "rejected", code });
    await expectRuns(agent, first.packageSha256);
    said.push(`${what}: rejected ${code}`);
  }

  // One that nobody signed may be on its way still: it is asked for a few times, and what runs goes on.
  await hostile.desire(desiredOf(++revision, [{ ...honest, deployment: "unsigned" }]), fleetKey);
  await until(
    "the device waits for somebody to sign",
    async () => (await agent.state()).deployment?.waiting?.code === "trust_target_unknown",
    { timeoutMs: STEP_MS },
  );
  await expectRuns(agent, first.packageSha256);
  said.push("a package that the targets keys do not know: waits trust_target_unknown");

  const warned = (code: ErrorCode): Promise<boolean> =>
    until(`the device warns of ${code}`, async () =>
      (await agent.state()).warnings.some((warning) => warning.code === code),
    );
  await hostile.desire(desiredOf(revision - 1, [honest]), fleetKey);
  await warned("desired_rollback_refused");
  await hostile.desire(desiredOf(revision + 1, [honest]), STRANGER);
  await warned("desired_signature_invalid");
  await hostile.send(
    DEVICE,
    sign(COMMAND_TYPE, encodeMessage("desired", desiredOf(revision + 1, [honest])), fleetKey),
  );
  await hostile.desire({ ...desiredOf(revision + 1, [honest]), device: "another" }, fleetKey);
  await agent.predicts(5);
  expect((await agent.state()).desiredRevision).toBe(revision);
  expect((await agent.state()).deployment?.deployment).toBe("unsigned");
  await expectRuns(agent, first.packageSha256);
  said.push(
    "an older desired state: refused desired_rollback_refused",
    "a desired state by another key: refused desired_signature_invalid",
  );

  // Back at the real server the device tells all of it.
  mqtt.aim(server.mqttPort);
  mqtt.cut();
  await hostile.stop();
  await until(
    "the server has the device's words about the last of it",
    async () => {
      const path = `/api/v1/devices/${DEVICE}/events?type=deployment&limit=20`;
      const { items } = await server.client.get<{
        items: { data: { deployment: string; error?: { code: string } } }[];
      }>(path);
      return items.some(
        ({ data }) =>
          data.deployment === `forged-${cases.length - 1}` && data.error?.code === "package_hash_mismatch",
      );
    },
    { timeoutMs: STEP_MS },
  );
}

/** The same package, but its variant claims to be one byte larger than a file may be. */
function hugePackage(made: ModelPackage): ModelPackage {
  const [variant, ...others] = made.manifest.variants;
  const manifest = {
    ...made.manifest,
    variants: [{ ...variant!, bytes: LIMITS.packageFileBytesMax + 1 }, ...others],
  };
  const manifestBytes = new Uint8Array(Buffer.from(JSON.stringify(manifest)));
  return {
    ...made,
    manifest,
    manifestBytes,
    packageSha256: createHash("sha256").update(manifestBytes).digest("hex"),
  };
}

/** The states that an update goes through, one after the other. */
const PATH: readonly DeploymentState[] = [
  "offered",
  "downloading",
  "verifying",
  "installed",
  "self_testing",
  "activating",
  "probation",
  "active",
];

/** Waits until the device is in this state of the update, or beyond it. */
async function reached(stateDir: string, packageSha256: string, state: DeploymentState): Promise<void> {
  await until(
    `the update is ${state}`,
    () => {
      const { deployment } = readDeploymentFile(stateDir);
      return (
        deployment.assignment.packageSha256 === packageSha256 &&
        PATH.indexOf(deployment.state) >= PATH.indexOf(state)
      );
    },
    { timeoutMs: STEP_MS, everyMs: 2 },
  );
}

/** What the files of a killed device say that its next start runs. */
function readDeployment(stateDir: string): { state: string; runs: string } {
  const { active, deployment } = readDeploymentFile(stateDir);
  const { state, assignment } = deployment;
  return { state, runs: state === "probation" ? assignment.packageSha256 : active.packageSha256 };
}

function readDeploymentFile(stateDir: string): {
  active: { packageSha256: string };
  deployment: { state: DeploymentState; assignment: { packageSha256: string } };
} {
  return JSON.parse(readFileSync(join(stateDir, "deployment.json"), "utf8")) as ReturnType<
    typeof readDeploymentFile
  >;
}

/** Every file of the package is there with its hash, and nothing else. */
function expectWhole(stateDir: string, packageSha256: string): void {
  const folder = join(stateDir, "packages", packageSha256);
  const manifestBytes = readFileSync(join(folder, "manifest.json"));
  expect(createHash("sha256").update(manifestBytes).digest("hex")).toBe(packageSha256);
  const files = manifestFiles(manifestSchema.parse(JSON.parse(manifestBytes.toString("utf8"))));
  for (const { file, sha256 } of files) {
    expect(
      createHash("sha256")
        .update(readFileSync(join(folder, file)))
        .digest("hex"),
    ).toBe(sha256);
  }
  const present = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  expect(present.length).toBe(files.length + 1);
}
