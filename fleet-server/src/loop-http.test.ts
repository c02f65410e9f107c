import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  decodeMessage,
  DESIRED_TYPE,
  encodeMessage,
  fromHex,
  manifestFiles,
  verify,
  type Assignment,
  type DataItem,
  type DeploymentState,
  type EnrolResponse,
  type Evaluation,
  type Model,
  type Page,
  type RolloutDeviceView,
  type RolloutView,
  type SampleView,
  type Snapshot,
  type TrainingRun,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  enrol,
  QUIET_STATE,
  rows,
  startTestServer,
  TestDevice,
  until,
  type TestServer,
} from "./kit.test.support.js";
import { drawItems, makeTinyPackage, SHAPES } from "./training/tiny-package.test.kit.js";

/** Training and PostgreSQL are real here: seconds on an idle machine, more on a busy one. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

let server: TestServer;
let pkg: ModelPackage;
let dir: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-loop-http-"));
  pkg = await makeTinyPackage(join(dir, "package"));
  server = await startTestServer();
  for (const { file, sha256 } of manifestFiles(pkg.manifest))
    await upload(await readFile(join(pkg.dir, file)), sha256);
  await upload(pkg.manifestBytes, pkg.packageSha256);
  await server.api.ok("POST", "/api/v1/models/shapes/versions", { manifestSha256: pkg.packageSha256 });
});
afterAll(async () => {
  await server?.end();
  await rm(dir, { recursive: true, force: true });
});

async function upload(bytes: Uint8Array, sha256: string): Promise<void> {
  const headers = { "content-type": "application/octet-stream" };
  const response = await server.api.send("PUT", `/api/v1/artifacts/sha256/${sha256}`, bytes, headers);
  if (!response.ok) throw new Error(`upload: ${response.status}`);
}

/** A device in miniature: does what its desired state asks for, and says so over MQTT. */
class SmallAgent {
  readonly device: TestDevice;
  readonly #identity: EnrolResponse;
  #events = 0;
  #batches = 0;
  #samples = 0;
  #n = 0;
  #done = new Set<string>();
  running: { version: number; packageSha256: string } | null = null;

  private constructor(device: TestDevice, identity: EnrolResponse) {
    this.device = device;
    this.#identity = identity;
  }

  static async start(name: string): Promise<SmallAgent> {
    const identity = await enrol(server, name);
    const agent = new SmallAgent(await TestDevice.connect(server, identity), identity);
    await agent.device.publish(
      "presence",
      encodeMessage("presence", { online: true, boot: 1, agentVersion: "0.1.0" }),
      true,
    );
    await agent.state();
    return agent;
  }

  async state(): Promise<void> {
    const now = Date.now();
    const running = this.running && {
      model: "shapes",
      ...this.running,
      variant: "int8-u8s8",
      executionProvider: "cpu",
      since: now,
    };
    const state = encodeMessage("state", {
      ...QUIET_STATE,
      time: now,
      running,
    });
    await this.device.publish("state", state, true);
  }

  /** The newest assignment that it was sent, its signature checked. */
  wanted(): Assignment | undefined {
    const keys = this.#identity.fleetKeys.map(({ keyId, publicKey }) => ({
      keyId,
      publicKey: fromHex(publicKey),
    }));
    const last = this.device.received.findLast(({ topic }) => topic.endsWith("down/desired"));
    return last && decodeMessage("desired", verify(DESIRED_TYPE, last.payload, keys)).assignments[0];
  }

  /** One round: takes an update, predicts, and tells how many of its predictions were right. */
  async work(rightOf100: (version: number) => number, ending: DeploymentState = "active"): Promise<void> {
    const wanted = this.wanted();
    if (wanted && !this.#done.has(wanted.deployment)) {
      this.#done.add(wanted.deployment);
      await this.deploy(wanted, ending);
    }
    if (!this.running) return this.state();
    const versionRef = {
      model: "shapes",
      version: this.running.version,
      packagePrefix: this.running.packageSha256.slice(0, 16),
    };
    const seq = ++this.#batches;
    await this.device.predictions({ seq, versionRef, firstN: this.#n, rows: rows(100, Date.now() - 10_000) });
    const right = rightOf100(this.running.version);
    const items = Array.from({ length: 100 }, (_, at) => ({ n: this.#n + at, correct: at < right }));
    this.#n += 100;
    await this.device.event(++this.#events, { type: "feedback", predictionBoot: 1, items });
    await this.state();
  }

  async deploy(wanted: Assignment, ending: DeploymentState): Promise<void> {
    const { deployment, model, version, packageSha256 } = wanted;
    const path: DeploymentState[] = ["downloading", "verifying", "installed", "self_testing"];
    for (const state of [
      ...path,
      ...(ending === "active" ? (["activating", "probation", "active"] as const) : [ending]),
    ]) {
      const error =
        state === "failed"
          ? { error: { code: "self_test_failed" as const, message: "golden case first" } }
          : {};
      await this.device.event(++this.#events, {
        type: "deployment",
        deployment,
        model,
        version,
        packageSha256,
        state,
        measured: {},
        ...error,
      });
    }
    if (ending === "active") this.running = { version, packageSha256 };
  }

  async sample(item: DataItem, said: number): Promise<void> {
    const seq = ++this.#samples;
    const message = encodeMessage("sample", {
      boot: 1,
      seq,
      prev: seq - 1,
      sample: `smp_${this.device.device.replace(/[^0-9a-z]/g, "")}${String(seq).padStart(8, "0")}`,
      part: 0,
      parts: 1,
      metadata: {
        predictionBoot: 1,
        n: 100_000 + seq,
        time: Date.now(),
        model: "shapes",
        version: 1,
        packageSha256: pkg.packageSha256,
        variant: "int8-u8s8",
        stratum: seq % 4 === 0 ? "random" : "worth",
        probability: 0.5,
        worth: 0.7,
        class: said,
        label: SHAPES[said]!,
        confidence: 0.5,
        latencyMs: 1,
        signals: { entropy: 0.9 },
        mediaType: item.media,
        bytes: item.payload.length,
        sha256: createHash("sha256").update(item.payload).digest("hex"),
        source: "test",
      },
      payload: item.payload,
    });
    await this.device.publish("sample", message);
  }
}

describe("the loop over MQTT and HTTP", () => {
  const agents: SmallAgent[] = [];
  const gate = { soakSeconds: 1, silenceSeconds: 30, predictionsMin: 50, waveTimeoutSeconds: 60 };
  const probation = { seconds: 0, predictions: 0 };
  afterAll(() => Promise.all(agents.map((agent) => agent.device.end())));

  /** The agents work until the rollout has left `running`. */
  async function follow(
    rollout: string,
    rightOf100: (version: number) => number,
    ending?: (agent: SmallAgent) => DeploymentState,
  ): Promise<RolloutView> {
    return until(
      "the rollout ends",
      async () => {
        for (const agent of agents) await agent.work(rightOf100, ending?.(agent));
        await new Promise((resolve) => setTimeout(resolve, 200));
        const view = await server.api.ok<RolloutView>("GET", `/api/v1/rollouts/${rollout}`);
        return !["running", "rolling_back"].includes(view.state) && view;
      },
      40_000,
    );
  }

  it("brings the first version to every device", async () => {
    for (const name of ["cam-a", "cam-b", "cam-c"]) agents.push(await SmallAgent.start(name));
    const body = {
      change: { kind: "package", model: "shapes", version: 1 },
      target: { group: "all" },
      gate,
      probation,
      waves: [{ devices: ["cam-a"] }, { percent: 100 }],
    };
    expect(await server.api.refused("POST", "/api/v1/rollouts", body)).toEqual([
      409,
      "rollout_needs_evidence",
    ]);
    const made = await server.api.ok<RolloutView>("POST", "/api/v1/rollouts", {
      ...body,
      forceReason: "there is no version before",
    });
    const done = await follow(made.rollout, () => 60);
    expect(done).toMatchObject({
      state: "succeeded",
      from: null,
      waves: [{ state: "passed" }, { state: "passed" }],
    });
    const { items } = await server.api.ok<Page<Model>>("GET", "/api/v1/models");
    expect(items[0]!.versions[0]).toMatchObject({ version: 1, runningOn: 3 });
  }, 60_000);

  it("mends it from labelled samples and rolls the mended version out on its evidence", async () => {
    for (const [at, item] of drawItems(120, "dark", 5).entries()) await agents[at % 2]!.sample(item, 2);
    const samples = await until("the samples are stored", async () => {
      const page = await server.api.ok<Page<SampleView>>("GET", "/api/v1/samples?limit=500&order=newest");
      return page.items.length === 120 && page.items;
    });
    const truth = new Map(
      drawItems(120, "dark", 5).map(({ payload, label }) => [
        createHash("sha256").update(payload).digest("hex"),
        label,
      ]),
    );
    for (const sample of samples) {
      const image = new Uint8Array(await (await server.api.send("GET", sample.payloadUrl)).arrayBuffer());
      const label = truth.get(createHash("sha256").update(image).digest("hex"));
      await server.api.ok("POST", `/api/v1/samples/${sample.sample}/annotations`, { label });
    }
    const { strata } = await server.api.ok<{ strata: { stratum: string; wrong: number; right: number }[] }>(
      "GET",
      "/api/v1/failures/statistics?model=shapes",
    );
    expect(strata.reduce((sum, { wrong, right }) => sum + wrong + right, 0)).toBe(120);
    const { dataset } = await server.api.ok<{ dataset: string }>("POST", "/api/v1/datasets", {
      name: "dark",
      model: "shapes",
    });
    const snapshot = await server.api.ok<Snapshot>("POST", `/api/v1/datasets/${dataset}/snapshots`);
    const lines = await (await server.api.send("GET", `/api/v1/snapshots/${snapshot.snapshot}/items`)).text();
    expect(createHash("sha256").update(lines).digest("hex")).toBe(snapshot.snapshot);
    const settings = { steps: 250, rate: 3e-3, validationShare: 0.25 };
    const { run } = await server.api.ok<TrainingRun>("POST", "/api/v1/training-runs", {
      model: "shapes",
      baseVersion: 1,
      snapshot: snapshot.snapshot,
      settings,
    });
    const trained = await until(
      "the run ends",
      async () => {
        const current = await server.api.ok<TrainingRun>("GET", `/api/v1/training-runs/${run}`);
        return current.finished !== null && current;
      },
      180_000,
    );
    expect(trained).toMatchObject({ state: "succeeded", candidate: 2 });
    const { items } = await server.api.ok<Page<Evaluation>>("GET", "/api/v1/evaluations?model=shapes");
    expect(items[0]).toMatchObject({ run, verdict: "passed" });
    const made = await server.api.ok<RolloutView>("POST", "/api/v1/rollouts", {
      change: { kind: "package", model: "shapes", version: 2 },
      target: { group: "all" },
      gate,
      probation,
    });
    const done = await follow(made.rollout, (version) => (version === 1 ? 60 : 97));
    expect(done).toMatchObject({ state: "succeeded", from: { version: 1 } });
    expect(done.accuracy.after.value).toBeGreaterThan(done.accuracy.before.value! + 0.2);
    expect(await server.api.ok("GET", `/api/v1/samples/${samples[0]!.sample}`)).toMatchObject({
      status: expect.stringMatching(/fixed|ignored/),
    });
  }, 300_000);

  it("rolls everything back when one device fails its self test", async () => {
    const body = {
      change: { kind: "package", model: "shapes", version: 1 },
      target: { group: "all" },
      // Feedback of the first minute, when this version was worse, lies in the same bucket of time.
      gate: { ...gate, accuracyDropMax: null },
      probation,
      onFailure: "roll_back",
      forceReason: "going back on purpose",
      waves: [{ devices: ["cam-a"] }, { percent: 100 }],
    };
    const made = await server.api.ok<RolloutView>("POST", "/api/v1/rollouts", body);
    const done = await follow(
      made.rollout,
      () => 97,
      (agent) => (agent.device.device === "cam-c" && agent.wanted()?.version === 1 ? "failed" : "active"),
    );
    expect(done).toMatchObject({ state: "rolled_back", waves: [{ state: "passed" }, { state: "failed" }] });
    const { items } = await server.api.ok<Page<RolloutDeviceView>>(
      "GET",
      `/api/v1/rollouts/${made.rollout}/devices`,
    );
    expect(items.find(({ device }) => device === "cam-c")).toMatchObject({
      state: "failed",
      errorCode: "self_test_failed",
    });
    for (const agent of agents) expect(agent.running?.version).toBe(2);
  }, 60_000);
});

describe("routes of the loop", () => {
  const hash = "a".repeat(64);
  const tokens = new Map<string, string>();
  beforeAll(async () => {
    for (const role of ["viewer", "labeler"]) {
      const { token } = await server.api.ok<{ token: string }>("POST", "/api/v1/tokens", {
        name: role,
        role,
      });
      tokens.set(role, token);
    }
  });

  it.each([
    ["GET", "/api/v1/models"],
    ["GET", "/api/v1/models/shapes/versions/1"],
    ["GET", "/api/v1/rollouts"],
    ["GET", "/api/v1/samples"],
    ["GET", "/api/v1/failures/statistics"],
    ["GET", "/api/v1/datasets"],
    ["GET", "/api/v1/training-runs"],
    ["GET", "/api/v1/evaluations"],
    ["GET", "/api/v1/audit"],
  ])("%s %s is for viewers, and for nobody without a credential", async (method, path) => {
    expect((await server.api.as(tokens.get("viewer")).send(method, path)).status).toBe(200);
    expect(await server.api.as(undefined).refused(method, path)).toEqual([401, "unauthenticated"]);
  });

  it("pages the audit log by time and id: nothing is left out, nothing twice", async () => {
    type Entries = Page<{ entry: string }>;
    const whole = await server.api.ok<Entries>("GET", "/api/v1/audit?limit=500");
    const read: string[] = [];
    let next: string | null = "";
    while (next !== null) {
      const page: Entries = await server.api.ok<Entries>("GET", `/api/v1/audit?limit=5${next}`);
      read.push(...page.items.map(({ entry }) => entry));
      next = page.next === null ? null : `&cursor=${page.next}`;
    }
    expect(read.length).toBeGreaterThan(2);
    expect(read).toEqual(whole.items.map(({ entry }) => entry));
  });

  it.each([
    ["POST", "/api/v1/models/shapes/versions", { manifestSha256: hash }, "labeler"],
    [
      "POST",
      "/api/v1/rollouts",
      { change: { kind: "package", model: "shapes", version: 1 }, target: { group: "all" } },
      "labeler",
    ],
    ["POST", "/api/v1/rollouts/rol_1/actions", { action: "abort" }, "labeler"],
    ["POST", "/api/v1/training-runs", { model: "shapes", baseVersion: 1, snapshot: hash }, "labeler"],
    ["POST", "/api/v1/training-runs/trn_1/cancel", undefined, "labeler"],
    ["POST", "/api/v1/evaluations", { model: "shapes", base: 1, candidate: 2, snapshot: hash }, "labeler"],
    ["POST", "/api/v1/samples/smp_00000001/annotations", { label: "bar" }, "viewer"],
    ["PATCH", "/api/v1/samples/smp_00000001", { status: "ignored" }, "viewer"],
    ["POST", "/api/v1/datasets", { name: "x", model: "shapes" }, "viewer"],
    ["POST", "/api/v1/datasets/dst_1/snapshots", undefined, "viewer"],
  ])("%s %s is refused to a role too low", async (method, path, body, role) => {
    expect(await server.api.as(tokens.get(role)).refused(method, path, body)).toEqual([403, "forbidden"]);
  });

  it.each<[string, string, unknown, number, string]>([
    ["POST", "/api/v1/models/Shapes!/versions", { manifestSha256: hash }, 400, "invalid_argument"],
    ["POST", "/api/v1/models/shapes/versions", { manifestSha256: "short" }, 400, "invalid_body"],
    ["POST", "/api/v1/models/shapes/versions", { manifestSha256: hash }, 404, "not_found"],
    ["GET", "/api/v1/models/nothing", undefined, 404, "not_found"],
    ["GET", "/api/v1/models/shapes/versions/0", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/models/shapes/versions/99", undefined, 404, "not_found"],
    ["POST", "/api/v1/rollouts", {}, 400, "invalid_body"],
    [
      "POST",
      "/api/v1/rollouts",
      { change: { kind: "package", model: "shapes", version: 1 }, target: { devices: [] } },
      400,
      "invalid_body",
    ],
    [
      "POST",
      "/api/v1/rollouts",
      {
        change: { kind: "package", model: "shapes", version: 1 },
        target: { group: "all" },
        waves: [{ percent: 101 }],
      },
      400,
      "invalid_body",
    ],
    [
      "POST",
      "/api/v1/rollouts",
      {
        change: { kind: "package", model: "shapes", version: 1 },
        target: { group: "all" },
        gate: { soakSeconds: -1 },
      },
      400,
      "invalid_body",
    ],
    [
      "POST",
      "/api/v1/rollouts",
      {
        change: { kind: "package", model: "shapes", version: 1 },
        target: { group: "all" },
        forceReason: "short",
      },
      400,
      "invalid_body",
    ],
    [
      "POST",
      "/api/v1/rollouts",
      { change: { kind: "package", model: "shapes", version: 9 }, target: { group: "all" } },
      404,
      "not_found",
    ],
    [
      "POST",
      "/api/v1/rollouts",
      {
        change: { kind: "package", model: "shapes", version: 1 },
        target: { devices: ["nobody"] },
        forceReason: "only a test",
      },
      404,
      "not_found",
    ],
    [
      "POST",
      "/api/v1/rollouts",
      {
        change: { kind: "package", model: "shapes", version: 1 },
        target: { group: "all" },
        waves: [{ count: 1 }],
        forceReason: "only a test",
      },
      400,
      "invalid_argument",
    ],
    ["GET", "/api/v1/rollouts/rol_none", undefined, 404, "not_found"],
    ["GET", "/api/v1/rollouts/..%2F..%2Fx", undefined, 400, "invalid_argument"],
    ["POST", "/api/v1/rollouts/rol_none/actions", { action: "explode" }, 400, "invalid_body"],
    ["POST", "/api/v1/rollouts/rol_none/actions", { action: "pause" }, 404, "not_found"],
    ["GET", "/api/v1/samples?limit=0", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/samples?limit=501", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/samples?order=best", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/samples?cursor=!!!", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/samples?cursor=WzEsMl0", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/rollouts?cursor=1800000000000", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/audit?cursor=1800000000000.aud_A", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/samples?after=yesterday", undefined, 400, "invalid_argument"],
    ["GET", "/api/v1/samples/smp_00000000none", undefined, 404, "not_found"],
    ["GET", "/api/v1/samples/smp_00000000none/payload", undefined, 404, "not_found"],
    ["POST", "/api/v1/samples/smp_00000000none/annotations", { label: "bar" }, 404, "not_found"],
    ["POST", "/api/v1/samples/smp_00000000none/annotations", { label: "" }, 400, "invalid_body"],
    ["POST", "/api/v1/samples/smp_00000000none/annotations", { label: "x".repeat(129) }, 400, "invalid_body"],
    ["PATCH", "/api/v1/samples/smp_00000000none", { status: "great" }, 400, "invalid_body"],
    ["POST", "/api/v1/datasets", { name: "", model: "shapes" }, 400, "invalid_body"],
    [
      "POST",
      "/api/v1/datasets",
      { name: "x", model: "shapes", query: { labelled: "yes" } },
      400,
      "invalid_body",
    ],
    ["POST", "/api/v1/datasets/dst_none/snapshots", undefined, 404, "not_found"],
    ["GET", `/api/v1/snapshots/${hash}`, undefined, 404, "not_found"],
    ["GET", `/api/v1/snapshots/${hash}/items`, undefined, 404, "not_found"],
    ["GET", "/api/v1/snapshots/zz/items", undefined, 400, "invalid_argument"],
    ["POST", "/api/v1/training-runs", { model: "shapes", baseVersion: 1, snapshot: hash }, 404, "not_found"],
    [
      "POST",
      "/api/v1/training-runs",
      { model: "shapes", baseVersion: 1, snapshot: hash, settings: { steps: 0 } },
      400,
      "invalid_body",
    ],
    [
      "POST",
      "/api/v1/training-runs",
      { model: "shapes", baseVersion: 1, snapshot: hash, settings: { steps: 100_001 } },
      400,
      "invalid_body",
    ],
    [
      "POST",
      "/api/v1/training-runs",
      { model: "shapes", baseVersion: 1, snapshot: hash, settings: { rate: Number.NaN } },
      400,
      "invalid_body",
    ],
    ["GET", "/api/v1/training-runs/trn_none", undefined, 404, "not_found"],
    ["POST", "/api/v1/training-runs/trn_none/cancel", undefined, 404, "not_found"],
    [
      "POST",
      "/api/v1/evaluations",
      { model: "shapes", base: 1, candidate: 9, snapshot: hash },
      404,
      "not_found",
    ],
    ["GET", "/api/v1/evaluations/evl_none", undefined, 404, "not_found"],
    ["GET", "/api/v1/evaluations?candidate=first", undefined, 400, "invalid_argument"],
    [
      "POST",
      "/api/v1/rollouts",
      { model: "shapes", padding: "x".repeat(2 * 1024 * 1024) },
      413,
      "limit_exceeded",
    ],
  ])("%s %s refuses what is wrong", async (method, path, body, status, code) => {
    expect(await server.api.refused(method, path, body)).toEqual([status, code]);
  });
});
