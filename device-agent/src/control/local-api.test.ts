import { lstat, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Registry } from "prom-client";
import { FieldloopError, type DeviceState } from "@fieldloop/protocol";
import { SessionService } from "@fieldloop/runtime/oip";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { call } from "../testing/local-client.test.kit.js";
import { type FeedbackItem, unknownPrediction } from "./feedback.js";
import { LocalApi } from "./local-api.js";
import { LocalSocket } from "./local-socket.js";
import { PackageCatalog } from "./package-catalog.js";
import { PackageStore } from "./package-store.js";
import { PredictionFeed } from "./prediction-feed.js";

let api: LocalApi;
let told: { boot: number; items: readonly FeedbackItem[] }[];
let healthy: boolean;
let folder: string;
const strangers: Server[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fieldloop-local-"));
  told = [];
  healthy = true;
  api = new LocalApi({
    port: 0,
    socketPath: join(folder, "agent.sock"),
    lanes: ["main"],
    inference: new SessionService([], { version: "1", platform: "none" }),
    feed: new PredictionFeed(3, new PackageCatalog(new PackageStore(folder))),
    predict: () => Promise.reject(new FieldloopError("unavailable", "no host")),
    metrics: new Registry(),
    state: () => ({ boot: 3 }) as DeviceState,
    hostPid: () => 77,
    health: () => ({ healthy, reasons: healthy ? [] : ["the inference host is not running"] }),
    feedback: (boot, items) => {
      if (boot > 3) return Promise.reject(unknownPrediction(`${boot}-0`));
      told.push({ boot, items });
      return Promise.resolve();
    },
    returnPrevious: () => Promise.reject(new FieldloopError("conflict", "there is no version before")),
    setCondition: (condition) =>
      condition === "dim"
        ? Promise.resolve(condition)
        : Promise.reject(new FieldloopError("invalid_argument", "no such")),
    truth: (_, n) => Promise.resolve(n === 7 ? "gear" : undefined),
  });
  await api.start();
});
afterEach(async () => {
  await api.stop();
  for (const server of strangers.splice(0)) await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

const post = (path: string, body: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${api.url}${path}`, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });

describe("local interface", () => {
  it("lets nobody keep its connections by sending slowly, or nothing", async () => {
    const { port } = new URL(api.url);
    const begin = performance.now();
    const sent = ["", "POST /feedback HTTP/1.1\r\nhost: localhost\r\n"].map(async (head) => {
      const socket = connect(Number(port), "127.0.0.1");
      socket.on("error", () => undefined).write(head);
      let answer = "";
      for await (const chunk of socket as AsyncIterable<Buffer>) answer += chunk.toString("latin1");
      return answer;
    });
    for (const answer of await Promise.all(sent)) expect(answer).toMatch(/^HTTP\/1\.1 408 |^$/);
    // The time that it may take, and some for a machine with other work; not the half minute that Node takes by itself.
    expect(performance.now() - begin).toBeLessThan(AGENT_LIMITS.localHeadersTimeoutMs + 10_000);
  }, 30_000);

  it("says how it is", async () => {
    expect(await (await fetch(`${api.url}/healthz`)).json()).toEqual({ status: "ok", reasons: [] });
    healthy = false;
    expect((await fetch(`${api.url}/healthz`)).status).toBe(503);
    expect((await fetch(`${api.url}/metrics`)).headers.get("content-type")).toContain("text/plain");
    expect(await (await fetch(`${api.url}/v1/state`)).json()).toEqual({ boot: 3, hostPid: 77 });
  });

  it("takes feedback for one prediction, or for many of several boots", async () => {
    expect((await post("/feedback", '{"prediction":"3-7","label":"gear"}')).status).toBe(202);
    const items = [
      { prediction: "2-1", correct: true },
      { prediction: "3-9", label: "bolt", correct: false },
    ];
    expect((await post("/feedback", JSON.stringify({ items }))).status).toBe(202);
    expect(told).toEqual([
      { boot: 3, items: [{ n: 7, label: "gear" }] },
      { boot: 2, items: [{ n: 1, correct: true }] },
      { boot: 3, items: [{ n: 9, label: "bolt", correct: false }] },
    ]);
  });

  it("moves the simulator and tells its truth", async () => {
    expect(await (await post("/simulator", '{"condition":"dim"}')).json()).toEqual({ condition: "dim" });
    const truth = await fetch(`${api.url}/simulator/truth?prediction=3-7`);
    expect(await truth.json()).toEqual({ prediction: "3-7", label: "gear" });
  });

  it.each([
    ["/feedback", "", 400, "invalid_body"],
    ["/feedback", "[1", 400, "invalid_body"],
    ["/feedback", "{}", 400, "invalid_body"],
    ["/feedback", '{"prediction":"3-7"}', 400, "invalid_body"],
    ["/feedback", '{"prediction":"x","label":"a"}', 400, "invalid_argument"],
    ["/feedback", '{"prediction":"0-7","label":"a"}', 400, "invalid_argument"],
    ["/feedback", '{"prediction":"9-0","label":"a"}', 404, "prediction_unknown"],
    ["/feedback", `{"prediction":"3-7","label":"${"a".repeat(300)}"}`, 400, "invalid_body"],
    ["/feedback", '{"items":[]}', 400, "invalid_body"],
    ["/feedback", `{"pad":"${"a".repeat(300_000)}"}`, 413, "limit_exceeded"],
    ["/simulator", '{"condition":5}', 400, "invalid_body"],
    ["/simulator", '{"condition":"fog"}', 400, "invalid_argument"],
    ["/nothing", "{}", 404, "not_found"],
  ])("refuses %s, case %#, with a coded problem", async (path, body, status, code) => {
    const response = await post(path, body);
    expect(response.status).toBe(status);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(await response.json()).toMatchObject({ status, code });
  });

  it("refuses other types of body, unknown predictions and strangers", async () => {
    expect((await post("/feedback", "{}", { "content-type": "text/plain" })).status).toBe(415);
    expect((await fetch(`${api.url}/simulator/truth?prediction=3-8`)).status).toBe(404);
    expect((await fetch(`${api.url}/simulator/truth`)).status).toBe(400);
    expect((await post("/feedback", "{}", { origin: "https://evil.example" })).status).toBe(403);
    expect((await post("/feedback", '{"prediction":"3-7","label":"a"}', { origin: api.url })).status).toBe(
      202,
    );
  });
});

describe("unix socket", () => {
  const listening = async (path: string): Promise<LocalSocket> => {
    const server = createServer((_request, response) => response.end("here"));
    strangers.push(server);
    return LocalSocket.listen(server, path);
  };

  it("has the same routes, for any host name, and goes with its server", async () => {
    const path = join(folder, "agent.sock");
    expect((await lstat(path)).mode & 0o777).toBe(0o600);
    expect((await call(path, "/healthz", { headers: { host: "agent" } })).json).toEqual({
      status: "ok",
      reasons: [],
    });
    expect((await call(path, "/v2/health/live")).status).toBe(200);
    expect((await call(api.url, "/healthz", { headers: { host: "agent" } })).status).toBe(403);
    await api.stop();
    await expect(lstat(path)).rejects.toThrow("ENOENT");
  });

  it("replaces a socket that nobody answers on, and nothing else", async () => {
    const path = join(folder, "other.sock");
    const first = await listening(path);
    await expect(listening(path)).rejects.toMatchObject({ code: "conflict" });
    expect((await call(path, "/")).bytes.toString()).toBe("here");
    await new Promise((resolve) => strangers.shift()!.close(resolve));
    const second = await listening(path);
    expect((await call(path, "/")).bytes.toString()).toBe("here");
    await first.remove();
    expect((await lstat(path)).isSocket()).toBe(true);
    await second.remove();
    await writeFile(path, "a file");
    await expect(listening(path)).rejects.toMatchObject({ code: "conflict" });
    await expect(listening(join(folder, "no", "folder.sock"))).rejects.toMatchObject({ code: "unavailable" });
    await expect(listening(join(folder, "x".repeat(120)))).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });
});
