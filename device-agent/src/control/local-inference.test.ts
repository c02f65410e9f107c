import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Assignment } from "@fieldloop/protocol";
import { encodeJpeg, openPackage } from "@fieldloop/runtime/node";
import { oipBackend } from "@fieldloop/runtime/oip";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { createAgentLog } from "../log.js";
import { TestFleet, until } from "../testing/fleet.test.kit.js";
import {
  binaryOutputs,
  binaryRequest,
  call,
  EventReader,
  type LocalAnswer,
} from "../testing/local-client.test.kit.js";
import { scratchFolder, type TestPackageOptions, writeTestPackage } from "../testing/package.test.kit.js";
import { type AgentHandle, startAgent } from "./agent.js";

/** A real agent with its host: one lane with a small network of our own, one with a model that ships, both on simulated frames. */
let folder: Awaited<ReturnType<typeof scratchFolder>>;
let fleet: TestFleet;
let agent: AgentHandle;
let socket: string;
/** Assignments of the two lanes beside the first. */
let others: Assignment[];
const SHIPPED = fileURLToPath(new URL("../../../models/packages/parts", import.meta.url));
const PIXELS = 64;
const log = createAgentLog({
  level: process.env["FIELDLOOP_TEST_LOG"] === "1" ? "debug" : "error",
  write: (line) => void process.stderr.write(line),
});

beforeAll(async () => {
  folder = await scratchFolder();
  fleet = new TestFleet();
  await fleet.start();
  socket = join(folder.path, "agent.sock");
  others = [
    { ...(await fleet.publish(await openPackage(SHIPPED), "p1")), lane: "parts" },
    { ...(await brightness(1, "q1", { model: "quiet", deadlyWithoutBlack: true })), lane: "quiet" },
  ];
  fleet.desire([await brightness(1, "d1"), ...others]);
  agent = await startAgent({
    directory: join(folder.path, "state"),
    server: fleet.serverUrl,
    token: "fle_once",
    source: [
      "simulator:parts?fps=20&model=brightness",
      "parts=simulator:parts?fps=5&model=parts",
      "quiet=http:0?model=quiet",
    ],
    socketPath: socket,
    grpcPort: 0,
    env: process.env,
    log,
  });
  await isActive("d1");
  await isActive("p1");
  await until(() => agent.state().lanes.every(({ running }) => running !== null), "all lanes run");
}, 120_000);
afterAll(async () => {
  await agent?.stop();
  await fleet.stop();
  await folder.remove();
});

async function brightness(
  version: number,
  deployment: string,
  options: Partial<TestPackageOptions> = {},
): Promise<Assignment> {
  return fleet.publish(
    await writeTestPackage(join(folder.path, deployment), { version, ...options }),
    deployment,
  );
}

async function isActive(deployment: string): Promise<void> {
  await until(() => fleet.deploymentStates(deployment).includes("active"), `${deployment} is active`);
}

const get = (path: string): Promise<LocalAnswer> => call(agent.localUrl, path);
const post = (path: string, body: unknown): Promise<LocalAnswer> =>
  call(agent.localUrl, path, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });

/** A gray image of one brightness for the small network, and the logits that it gives by hand. */
const gray = (value: number): number[] => new Array<number>(PIXELS).fill(value);
const logitsOf = (value: number, version: number): number[] => [
  4 - 8 * value + version / 1000,
  8 * value - 4,
];
const jsonInput = (value: number): object => ({
  inputs: [{ name: "image", datatype: "FP32", shape: [1, 1, 8, 8], data: gray(value) }],
});
function expectLogits(actual: readonly number[], expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, index) => expect(value).toBeCloseTo(expected[index]!, 3));
}
async function jpeg(value: number): Promise<Uint8Array> {
  const data = new Uint8Array(64 * 64 * 3).fill(value);
  return encodeJpeg({ kind: "pixels", data, width: 64, height: 64, channels: 3 }, 95);
}
async function metric(name: string): Promise<number> {
  const text = (await get("/metrics")).bytes.toString();
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
}

describe("Open Inference Protocol on the agent", () => {
  it("tells a client of the specification what there is", async () => {
    expect((await get("/v2")).json).toMatchObject({
      name: "fieldloop-agent",
      extensions: ["binary_tensor_data", "model_repository"],
    });
    expect((await get("/v2/health/live")).status).toBe(200);
    expect((await get("/v2/health/ready")).status).toBe(200);
    const index = await post("/v2/repository/index", {});
    expect(index.json).toEqual([
      { name: "brightness", version: "1", state: "READY", reason: "" },
      { name: "parts", version: "1", state: "READY", reason: "" },
      { name: "quiet", version: "1", state: "READY", reason: "" },
    ]);
    expect((await get("/v2/models/brightness/ready")).status).toBe(200);
    expect((await get("/v2/models/brightness/versions/1")).json).toEqual({
      name: "brightness",
      versions: ["1"],
      platform: "onnxruntime_cpu",
      inputs: [{ name: "image", datatype: "FP32", shape: [1, 1, 8, 8] }],
      outputs: [{ name: "logits", datatype: "FP32", shape: [1, 2] }],
    });
  });

  it("infers from JSON, from binary data and over the unix socket", async () => {
    const json = await post("/v2/models/brightness/infer", { ...jsonInput(0.25), id: "q1" });
    expect(json.json).toMatchObject({ model_name: "brightness", model_version: "1", id: "q1" });
    const [output] = json.json["outputs"] as { name: string; shape: number[]; data: number[] }[];
    expect(output).toMatchObject({ name: "logits", datatype: "FP32", shape: [1, 2] });
    expectLogits(output!.data, logitsOf(0.25, 1));
    const raw = new Uint8Array(Float32Array.from(gray(0.75)).buffer);
    const asked = binaryRequest([{ name: "image", datatype: "FP32", shape: [1, 1, 8, 8], raw }], {
      parameters: { binary_data_output: true },
      outputs: [{ name: "logits" }],
    });
    for (const address of [agent.localUrl, socket]) {
      const answer = await call(address, "/v2/models/brightness/versions/1/infer", asked);
      expect(answer.status).toBe(200);
      expectLogits(binaryOutputs(answer)["logits"]!, logitsOf(0.75, 1));
    }
  });

  it("makes an image ready as the manifest says", async () => {
    const file = await jpeg(51);
    const image = (extra: object): object => ({ name: "image", datatype: "BYTES", shape: [1], ...extra });
    const parameters = { content_type: "image/jpeg" };
    const encoded = image({ parameters, data: [Buffer.from(file).toString("base64")] });
    const json = await post("/v2/models/brightness/infer", { inputs: [encoded] });
    const [output] = json.json["outputs"] as { data: number[] }[];
    output!.data.forEach((value, at) => expect(value).toBeCloseTo(logitsOf(0.2, 1)[at]!, 1));
    const raw = Buffer.concat([Buffer.from(Uint32Array.of(file.length).buffer), file]);
    const asked = binaryRequest([{ name: "any", datatype: "BYTES", shape: [1], raw, parameters }]);
    const binary = await call(agent.localUrl, "/v2/models/parts/infer", asked);
    expect(
      (binary.json["outputs"] as { name: string; shape: number[] }[]).map(({ name, shape }) => [name, shape]),
    ).toEqual(
      expect.arrayContaining([
        ["logits", [1, 6]],
        ["embedding", [1, 32]],
      ]),
    );
  });

  it("serves our own client as any backend, over HTTP, the unix socket and gRPC", async () => {
    const data = Float32Array.from(gray(0.5));
    const names = [
      `oip+${agent.localUrl}/v2/models/brightness`,
      `oip+unix:${socket}:/v2/models/brightness`,
      `oip+${agent.grpcUrl}/v2/models/brightness/versions/1`,
    ];
    for (const executionProvider of names) {
      const session = await oipBackend(executionProvider).openSession("", {
        executionProvider,
        threadCount: 1,
      });
      const { logits } = await session.run({ image: { type: "float32", dims: [1, 1, 8, 8], data } });
      expectLogits([...(logits!.data as Float32Array)], logitsOf(0.5, 1));
      await session.release();
    }
  });

  it("keeps the socket for its user", async () => {
    const { mode } = await lstat(socket);
    expect(mode & 0o777).toBe(0o600);
  });

  const image = (change: object): string =>
    JSON.stringify({
      inputs: [{ name: "image", datatype: "FP32", shape: [1, 1, 8, 8], data: gray(0), ...change }],
    });
  it.each<[string, string, string | Uint8Array, Record<string, string>, number, string]>([
    ["no JSON", "/v2/models/brightness/infer", "{", {}, 400, "invalid_body"],
    ["no inputs", "/v2/models/brightness/infer", "{}", {}, 400, "invalid_body"],
    [
      "a wrong shape",
      "/v2/models/brightness/infer",
      image({ shape: [1, 1, 4, 16] }),
      {},
      400,
      "tensor_invalid",
    ],
    ["a wrong type", "/v2/models/brightness/infer", image({ datatype: "INT32" }), {}, 400, "tensor_invalid"],
    ["an unknown type", "/v2/models/brightness/infer", image({ datatype: "FP8" }), {}, 400, "tensor_invalid"],
    ["too few elements", "/v2/models/brightness/infer", image({ data: [1] }), {}, 400, "tensor_invalid"],
    ["a huge shape", "/v2/models/brightness/infer", image({ shape: [1e9, 1e9] }), {}, 413, "limit_exceeded"],
    ["an unknown input", "/v2/models/brightness/infer", image({ name: "x" }), {}, 400, "tensor_invalid"],
    [
      "an unknown output",
      "/v2/models/brightness/infer",
      JSON.stringify({ ...jsonInput(0), outputs: [{ name: "x" }] }),
      {},
      400,
      "tensor_invalid",
    ],
    ["an unknown model", "/v2/models/nothing/infer", JSON.stringify(jsonInput(0)), {}, 404, "not_found"],
    [
      "an unknown version",
      "/v2/models/brightness/versions/9/infer",
      JSON.stringify(jsonInput(0)),
      {},
      404,
      "not_found",
    ],
    [
      "a version that is no number",
      "/v2/models/brightness/versions/x/infer",
      JSON.stringify(jsonInput(0)),
      {},
      404,
      "not_found",
    ],
    [
      "a wrong timeout",
      "/v2/models/brightness/infer",
      JSON.stringify({ ...jsonInput(0), parameters: { timeout: -1 } }),
      {},
      400,
      "invalid_argument",
    ],
    [
      "a lying length",
      "/v2/models/brightness/infer",
      "{}",
      { "inference-header-content-length": "99" },
      400,
      "invalid_body",
    ],
    [
      "an image that is none",
      "/v2/models/brightness/infer",
      image({ datatype: "BYTES", shape: [1], data: ["AAAA"], parameters: { content_type: "image/png" } }),
      {},
      415,
      "image_type_refused",
    ],
    ["a bad escape", "/v2/models/%zz/infer", "{}", {}, 400, "invalid_argument"],
    ["an unknown path", "/v2/else", "{}", {}, 404, "not_found"],
    ["another host", "/v2/models/brightness/infer", "{}", { host: "evil.example" }, 403, "forbidden"],
    ["a page", "/v2/models/brightness/infer", "{}", { origin: "https://evil.example" }, 403, "forbidden"],
    ["unloading what a lane runs", "/v2/repository/models/brightness/unload", "{}", {}, 409, "conflict"],
    ["loading the unknown", "/v2/repository/models/nothing/load", "{}", {}, 404, "not_found"],
    [
      "a frame for no lane",
      "/v1/predict?lane=cellar",
      "x",
      { "content-type": "image/jpeg" },
      409,
      "lane_unknown",
    ],
    [
      "a frame of no type",
      "/v1/predict",
      "x",
      { "content-type": "text/html" },
      415,
      "unsupported_media_type",
    ],
    ["a frame that is none", "/v1/predict", "x", { "content-type": "image/jpeg" }, 415, "image_type_refused"],
    [
      "a row for an image",
      "/v1/predict",
      '{"a":1}',
      { "content-type": "application/json" },
      400,
      "invalid_argument",
    ],
    [
      "half a float",
      "/v1/predict",
      "xxx",
      { "content-type": "application/octet-stream" },
      400,
      "window_invalid",
    ],
  ])("refuses %s with a code", async (_, path, body, headers, status, code) => {
    const answer = await call(agent.localUrl, path, { method: "POST", body, headers });
    expect([answer.status, answer.json["code"]]).toEqual([status, code]);
    expect((await get("/v2/health/ready")).status).toBe(200);
  });

  it("lets only so many wait, drops what nobody waits for any more, and answers the others", async () => {
    const body = JSON.stringify(jsonInput(0.5));
    const leaving = Array.from({ length: 8 }, async () => {
      const gone = AbortSignal.timeout(1);
      await fetch(`${agent.localUrl}/v2/models/brightness/infer`, {
        method: "POST",
        body,
        signal: gone,
      }).catch(() => undefined);
    });
    const asked = Array.from({ length: 40 }, () => post("/v2/models/brightness/infer", jsonInput(0.5)));
    const statuses = (await Promise.all(asked)).map(({ status }) => status);
    await Promise.all(leaving);
    expect(statuses.filter((status) => status !== 200 && status !== 429)).toEqual([]);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(
      AGENT_LIMITS.localWaitingMax / 2,
    );
    expect((await post("/v2/models/brightness/infer", jsonInput(0))).status).toBe(200);
  });

  it("refuses a body that is too large before it has read it, and goes on", async () => {
    const headers = { "content-length": String(AGENT_LIMITS.localTensorBytesMax + 1) };
    const answer = await call(agent.localUrl, "/v2/models/brightness/infer", {
      method: "POST",
      headers,
      body: "x",
    }).catch((error: unknown) => error);
    // The connection may be cut while the client still writes.
    if (!(answer instanceof Error)) expect((answer as LocalAnswer).json["code"]).toBe("limit_exceeded");
    expect((await post("/v2/models/brightness/infer", jsonInput(0))).status).toBe(200);
  });
});

describe("frames for a lane", () => {
  it("are the only predictions of a lane without frames of its own: inferences are none", async () => {
    const events = await EventReader.open(`${agent.localUrl}/v1/predictions?lane=quiet`);
    for (let count = 0; count < 3; count++) {
      expect((await post("/v2/models/quiet/infer", jsonInput(0))).status).toBe(200);
    }
    const black = { body: await jpeg(0), headers: { "content-type": "image/jpeg" } };
    const first = await call(agent.localUrl, "/v1/predict?lane=quiet", black);
    const second = await call(socket, "/v1/predict?lane=quiet", black);
    expect((await events.next())?.id).toBe(first.json["prediction"]);
    expect((await events.next())?.id).toBe(second.json["prediction"]);
    events.close();
    const stored = (): number =>
      fleet.predictions
        .filter(({ versionRef }) => versionRef.model === "quiet")
        .reduce((sum, { count }) => sum + count, 0);
    await until(() => stored() >= 2, "the fleet has them");
    expect(stored()).toBe(2);
  });

  it("are predictions like any other: numbered, told to the fleet, and good for feedback", async () => {
    const answer = await call(agent.localUrl, "/v1/predict?lane=main", {
      body: await jpeg(250),
      headers: { "content-type": "image/jpeg" },
    });
    expect(answer.status).toBe(200);
    expect(answer.json).toMatchObject({
      class: 1,
      label: "light",
      heads: [{ kind: "classification", label: "light" }],
    });
    const id = String(answer.json["prediction"]);
    const n = Number(id.split("-")[1]);
    expect((await post("/feedback", { prediction: id, label: "light" })).status).toBe(202);
    await until(
      () => fleet.predictions.some(({ firstN, count }) => n >= firstN && n < firstN + count),
      "the fleet has it",
    );
    const { framesFailed } = agent.state().lanes[0]!;
    expect(framesFailed).toBe(0);
  });
});

describe("subscriptions", () => {
  it("see each prediction that is counted, once, with labels", async () => {
    const events = await EventReader.open(`${agent.localUrl}/v1/predictions?lane=main`);
    const seen: number[] = [];
    for (let count = 0; count < 30; count++) {
      const event = await events.next();
      expect(event).toMatchObject({
        event: "prediction",
        data: { lane: "main", model: "brightness", version: 1 },
      });
      expect(event!.id).toBe(event!.data["prediction"]);
      expect(["dark", "light"]).toContain(event!.data["label"]);
      seen.push(Number(event!.id!.split("-")[1]));
    }
    events.close();
    const stored = (): Set<number> =>
      new Set(
        fleet.predictions
          .filter(({ versionRef }) => versionRef.model === "brightness")
          .flatMap(({ firstN, count }) => Array.from({ length: count }, (_, index) => firstN + index)),
      );
    await until(() => stored().has(seen.at(-1)!), "the fleet has the last of them");
    const all = [...stored()].filter((n) => n >= seen[0]! && n <= seen.at(-1)!).sort((a, b) => a - b);
    expect(seen).toEqual(all);
    expect(await metric("fieldloop_predictions_total")).toBeGreaterThanOrEqual(seen.length);
  });

  it("filter, and come as JSON lines too", async () => {
    const abort = new AbortController();
    const response = await fetch(`${agent.localUrl}/v1/predictions?model=parts&minConfidence=0.1`, {
      headers: { accept: "application/x-ndjson" },
      signal: abort.signal,
    });
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    const reader = response.body!.getReader();
    let text = "";
    while (!/^\{.*\}$/m.test(text)) text += new TextDecoder().decode((await reader.read()).value);
    const item = JSON.parse(/^\{.*\}$/m.exec(text)![0]) as Record<string, unknown>;
    expect(item).toMatchObject({ lane: "parts", model: "parts" });
    expect(["washer", "nut", "bolt", "gear", "bracket", "spring"]).toContain(item["label"]);
    abort.abort();
  });

  it("are refused where they ask for nonsense", async () => {
    expect((await get("/v1/predictions?lane=cellar")).json).toMatchObject({ code: "lane_unknown" });
    expect((await get("/v1/predictions?minConfidence=2")).json).toMatchObject({ code: "invalid_argument" });
  });
});

describe("changes under way", () => {
  it("answers every inference while a version is swapped, then loads the one before on demand", async () => {
    fleet.desire([await brightness(2, "d2"), ...others]);
    const versions = new Set<unknown>();
    while (!fleet.deploymentStates("d2").includes("active")) {
      const answer = await post("/v2/models/brightness/infer", jsonInput(0.5));
      expect(answer.status).toBe(200);
      const version = Number(answer.json["model_version"]);
      expectLogits((answer.json["outputs"] as { data: number[] }[])[0]!.data, logitsOf(0.5, version));
      versions.add(version);
    }
    versions.add(Number((await post("/v2/models/brightness/infer", jsonInput(0.5))).json["model_version"]));
    expect([...versions]).toEqual([1, 2]);

    const path = "/v2/models/brightness/versions/1";
    expect((await post("/v2/repository/index", {})).json).toContainEqual({
      name: "brightness",
      version: "1",
      state: "UNAVAILABLE",
      reason: "installed, not loaded",
    });
    expect((await get(`${path}/ready`)).status).toBe(503);
    expect((await post(`${path}/infer`, jsonInput(1))).json).toMatchObject({ code: "unavailable" });
    expect((await post("/v2/repository/models/brightness@1/load", {})).status).toBe(200);
    const old = await post(`${path}/infer`, jsonInput(1));
    expectLogits((old.json["outputs"] as { data: number[] }[])[0]!.data, logitsOf(1, 1));
    expect((await post("/v2/models/brightness/infer", jsonInput(1))).json["model_version"]).toBe("2");
    expect((await post("/v2/repository/models/brightness@1/unload", {})).status).toBe(200);
    expect((await get(`${path}/ready`)).status).toBe(503);
  }, 60_000);

  it("says that the host was killed in the middle of inferences, blames no version, and answers again", async () => {
    const asked = Array.from({ length: 12 }, () => post("/v2/models/brightness/infer", jsonInput(0.5)));
    process.kill(agent.hostPid()!, "SIGKILL");
    for (const answer of await Promise.all(asked)) {
      if (answer.status === 200) continue;
      expect(["host_crashed", "unavailable", "rate_limited"]).toContain(answer.json["code"]);
    }
    await until(() => agent.state().counters.hostRestarts === 1, "the next host starts");
    for (;;) {
      const answer = await post("/v2/models/brightness/infer", jsonInput(0.5));
      if (answer.status === 200) break;
      expect(["host_crashed", "unavailable"]).toContain(answer.json["code"]);
    }
    expect(agent.state().lanes[0]).toMatchObject({ running: { version: 2 } });
  }, 60_000);

  it("says so where an inference kills the host: no frame and no version is blamed", async () => {
    await until(() => agent.state().lanes[2]?.running !== null, "the lane runs again");
    for (let round = 0; round < AGENT_LIMITS.probationHostCrashesMax; round++) {
      const restarts = agent.state().counters.hostRestarts;
      const answer = await post("/v2/models/quiet/infer", jsonInput(0.5));
      expect([answer.status, answer.json["code"]]).toEqual([500, "host_crashed"]);
      await until(() => agent.state().counters.hostRestarts === restarts + 1, "the next host starts");
      await until(() => agent.state().lanes[2]?.running !== null, "the lane runs again");
    }
    expect((await post("/v2/models/quiet/infer", jsonInput(0))).status).toBe(200);
    expect(agent.state().lanes[2]).toMatchObject({
      running: { version: 1 },
      deployment: { state: "probation" },
    });
    expect(agent.state().warnings.map(({ code }) => code)).not.toContain("frame_quarantined");
  }, 60_000);
});
