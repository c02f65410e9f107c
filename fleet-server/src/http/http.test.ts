import { createHash, randomBytes } from "node:crypto";
import { connect as connectTcp } from "node:net";
import { LIMITS, encodeMessage, type Group, type LiveEvent } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  FACTS,
  TestDevice,
  enrol,
  startTestServer,
  until,
  type Api,
  type TestServer,
} from "../kit.test.support.js";
import { rangeOf } from "./range.js";

let server: TestServer;
let device: { device: string; credential: string };
const tokens: Record<"viewer" | "labeler" | "operator", string> = { viewer: "", labeler: "", operator: "" };

beforeAll(async () => {
  server = await startTestServer();
  device = await enrol(server, "cam-1");
  for (const role of ["viewer", "labeler", "operator"] as const) {
    tokens[role] = (
      await server.api.ok<{ token: string }>("POST", "/api/v1/tokens", { name: role, role })
    ).token;
  }
});
afterAll(() => server.end());

interface Operation {
  readonly method: string;
  readonly path: string;
}

async function operations(): Promise<Operation[]> {
  const document = await server.api.ok<{ paths: Record<string, Record<string, unknown>> }>(
    "GET",
    "/api/openapi.json",
  );
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => ({
      method: method.toUpperCase(),
      path: path.replace(/\{[^}]+\}/g, "1"),
    })),
  );
}

describe("every route", () => {
  const open = new Set(["POST /api/v1/session", "POST /api/v1/enrol"]);
  const anyone = new Set([...open, "DELETE /api/v1/session"]);

  it("needs a credential, refuses devices, and lets viewers write nothing", async () => {
    const all = await operations();
    expect(all.length).toBeGreaterThan(25);
    for (const { method, path } of all) {
      const name = `${method} ${path}`;
      const body = method === "GET" || method === "DELETE" ? undefined : {};
      if (open.has(name)) continue;
      expect([name, ...(await server.api.as(undefined).refused(method, path, body))]).toEqual([
        name,
        401,
        "unauthenticated",
      ]);
      if (anyone.has(name)) continue;
      expect([name, ...(await server.api.as(device.credential).refused(method, path, body))]).toEqual([
        name,
        403,
        "forbidden",
      ]);
      if (method === "GET") continue;
      expect([name, ...(await server.api.as(tokens.viewer).refused(method, path, body))]).toEqual([
        name,
        403,
        "forbidden",
      ]);
    }
  });

  it("answers an unknown path, an unknown token and a malformed header with a problem", async () => {
    const response = await server.api.send("GET", "/api/v1/nothing");
    expect(response.status).toBe(404);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(await response.json()).toMatchObject({
      code: "not_found",
      status: 404,
      type: "urn:fieldloop:error:not_found",
    });
    expect(await server.api.as("flt_wrong").refused("GET", "/api/v1/devices")).toEqual([
      401,
      "unauthenticated",
    ]);
    expect(
      await server.api
        .as(undefined)
        .refused("GET", "/api/v1/devices", undefined, { authorization: "Basic eA==" }),
    ).toEqual([401, "unauthenticated"]);
  });
});

describe("bodies, queries and parameters", () => {
  const cases: [name: string, method: string, path: string, body: unknown, status: number, code: string][] = [
    ["no body", "POST", "/api/v1/tokens", undefined, 400, "invalid_body"],
    ["a name with a space", "POST", "/api/v1/tokens", { name: "a b", role: "viewer" }, 400, "invalid_body"],
    ["an unknown role", "POST", "/api/v1/tokens", { name: "x", role: "owner" }, 400, "invalid_body"],
    ["a taken name", "POST", "/api/v1/tokens", { name: "viewer", role: "viewer" }, 409, "already_exists"],
    ["a ttl of 0", "POST", "/api/v1/enrolment-tokens", { ttlSeconds: 0 }, 400, "invalid_body"],
    ["too many uses", "POST", "/api/v1/enrolment-tokens", { uses: 10_001 }, 400, "invalid_body"],
    [
      "an unknown enrolment token",
      "POST",
      "/api/v1/enrol",
      { token: "fle_x", facts: FACTS },
      403,
      "enrolment_refused",
    ],
    [
      "a device id with a slash",
      "POST",
      "/api/v1/enrol",
      { token: "x", device: "a/b", facts: FACTS },
      400,
      "invalid_body",
    ],
    ["no facts", "POST", "/api/v1/enrol", { token: "x" }, 400, "invalid_body"],
    ["a list instead of tags", "PUT", "/api/v1/devices/cam-1/tags", ["a"], 400, "invalid_body"],
    ["a tag with capitals", "PUT", "/api/v1/devices/cam-1/tags", { Site: "x" }, 400, "invalid_body"],
    ["tags of nobody", "PUT", "/api/v1/devices/nobody/tags", {}, 404, "not_found"],
    [
      "suspended as text",
      "PUT",
      "/api/v1/devices/cam-1/suspension",
      { suspended: "yes" },
      400,
      "invalid_body",
    ],
    ["a wildcard as device", "GET", "/api/v1/devices/+", undefined, 400, "invalid_argument"],
    ["a device that is not there", "GET", "/api/v1/devices/cam-9", undefined, 404, "not_found"],
    ["a limit of 0", "GET", "/api/v1/devices?limit=0", undefined, 400, "invalid_argument"],
    [
      "a limit that is no number",
      "GET",
      "/api/v1/devices/cam-1/predictions?limit=x",
      undefined,
      400,
      "invalid_argument",
    ],
    ["too many points", "GET", "/api/v1/devices/cam-1/series?from=0", undefined, 413, "limit_exceeded"],
    ["a time before 1970", "GET", "/api/v1/accuracy?from=-1", undefined, 400, "invalid_argument"],
    ["a command of no kind", "POST", "/api/v1/devices/cam-1/commands", {}, 400, "invalid_body"],
    [
      "a capture of 0",
      "POST",
      "/api/v1/devices/cam-1/commands",
      { kind: "capture", count: 0 },
      400,
      "invalid_body",
    ],
    [
      "a group of neither list nor selector",
      "PUT",
      "/api/v1/groups/g",
      { devices: null, selector: null },
      400,
      "invalid_argument",
    ],
    [
      "a group of unknown devices",
      "PUT",
      "/api/v1/groups/g",
      { devices: ["cam-9"], selector: null },
      404,
      "not_found",
    ],
    ["a group that is not there", "DELETE", "/api/v1/groups/none", undefined, 404, "not_found"],
    ["a share above 1", "PATCH", "/api/v1/policies/default", { randomShare: 1.1 }, 400, "invalid_body"],
    [
      "a policy of a group that is not there",
      "PATCH",
      "/api/v1/policies/groups/none",
      { worthMin: 0.5 },
      404,
      "not_found",
    ],
    [
      "an artifact name that is no hash",
      "PUT",
      "/api/v1/artifacts/sha256/x",
      Uint8Array.of(1),
      400,
      "invalid_argument",
    ],
    [
      "an artifact with another hash",
      "PUT",
      `/api/v1/artifacts/sha256/${"0".repeat(64)}`,
      Uint8Array.of(1),
      400,
      "package_hash_mismatch",
    ],
  ];
  it.each(cases)("%s", async (_name, method, path, body, status, code) => {
    expect(await server.api.refused(method, path, body)).toEqual([status, code]);
  });

  it("names each field that it refuses", async () => {
    const response = await server.api.send("POST", "/api/v1/tokens", { name: "UPPER", role: "owner" });
    expect(await response.json()).toMatchObject({ issues: [{ path: "name" }, { path: "role" }] });
  });

  it("names a rollout's id that is none, before its events are streamed", async () => {
    const refused = (id: string): Promise<[number, string]> =>
      server.api.refused("GET", `/api/v1/rollouts/${id}/events?after=9e99`);
    expect(await refused("x")).toEqual([400, "invalid_argument"]);
    expect(await refused("rol_none")).toEqual([404, "not_found"]);
  });

  it("refuses what is not JSON", async () => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${server.httpUrl}/api/v1/session`, { method: "POST", body: "{", headers });
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([
      400,
      "invalid_body",
    ]);
  });
});

describe("the size limit of a body", () => {
  it("refuses an announced one without reading it", async () => {
    const api = server.api.as(undefined);
    const body = { token: "x".repeat(LIMITS.jsonBodyBytesMax) };
    expect(await api.refused("POST", "/api/v1/session", body)).toEqual([413, "limit_exceeded"]);
  });

  it("refuses an endless chunked one and closes the socket", async () => {
    const socket = connectTcp(server.httpPort, "127.0.0.1");
    let answer = "";
    let closed = false;
    let sent = 0;
    socket.on("data", (chunk: Buffer) => (answer += chunk.toString()));
    socket.on("close", () => (closed = true));
    socket.on("error", () => (closed = true));
    socket.write(
      "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    const chunk = Buffer.concat([Buffer.from("10000\r\n"), Buffer.alloc(65_536, 32), Buffer.from("\r\n")]);
    while (!closed && sent < 64 * LIMITS.jsonBodyBytesMax) {
      sent += chunk.length;
      if (!socket.write(chunk)) await new Promise<void>((resolve) => setTimeout(resolve, 2));
    }
    await until("closed", () => closed);
    expect(answer).toContain("413");
    expect(sent).toBeLessThan(32 * LIMITS.jsonBodyBytesMax);
  });
});

describe("sessions", () => {
  async function signIn(): Promise<string> {
    const response = await server.api
      .as(undefined)
      .send("POST", "/api/v1/session", { token: tokens.operator });
    expect(response.status).toBe(200);
    const cookie = response.headers.get("set-cookie")!;
    expect(cookie).toMatch(/HttpOnly/);
    expect(cookie).toMatch(/SameSite=Lax/);
    return cookie.split(";")[0]!;
  }
  const asSession = (cookie: string, more: Record<string, string> = {}): Record<string, string> => ({
    cookie,
    ...more,
  });

  it("are made from a token, say who it is, and end", async () => {
    const cookie = await signIn();
    const api: Api = server.api.as(undefined);
    const who = await api.send("GET", "/api/v1/session", undefined, asSession(cookie));
    expect(await who.json()).toEqual({ role: "operator", name: "operator" });
    const origin = server.httpUrl;
    expect(
      (await api.send("DELETE", "/api/v1/session", undefined, asSession(cookie, { origin }))).status,
    ).toBe(204);
    expect((await api.send("GET", "/api/v1/session", undefined, asSession(cookie))).status).toBe(401);
  });

  it("write only from this origin", async () => {
    const cookie = await signIn();
    const path = "/api/v1/enrolment-tokens";
    const api = server.api.as(undefined);
    const tries: [headers: Record<string, string>, status: number][] = [
      [{ origin: server.httpUrl }, 201],
      [{ "sec-fetch-site": "same-origin" }, 201],
      [{}, 403],
      [{ origin: "https://evil.example" }, 403],
      [{ origin: "null" }, 403],
      [{ origin: `${server.httpUrl}.evil.example` }, 403],
      [{ "sec-fetch-site": "cross-site" }, 403],
    ];
    for (const [headers, status] of tries) {
      expect([headers, (await api.send("POST", path, {}, asSession(cookie, headers))).status]).toEqual([
        headers,
        status,
      ]);
    }
  });

  it("are not made by guessing: after five failures in a minute an address waits", async () => {
    const own = await startTestServer();
    try {
      const api = own.api.as(undefined);
      for (let count = 0; count < 5; count++) {
        expect(await api.refused("POST", "/api/v1/session", { token: `flt_guess${count}` })).toEqual([
          401,
          "unauthenticated",
        ]);
      }
      expect(await api.refused("POST", "/api/v1/session", { token: "flt_guess6" })).toEqual([
        429,
        "rate_limited",
      ]);
      expect((await api.send("POST", "/api/v1/session", { token: own.adminToken })).status).toBe(200);
    } finally {
      await own.end();
    }
  });

  it("end with their token", async () => {
    await server.api.ok("POST", "/api/v1/tokens", { name: "leaver", role: "viewer" }).then(async (made) => {
      const { token } = made as { token: string };
      const response = await server.api.as(undefined).send("POST", "/api/v1/session", { token });
      const cookie = response.headers.get("set-cookie")!.split(";")[0]!;
      await server.api.ok("DELETE", "/api/v1/tokens/leaver");
      expect(
        (await server.api.as(undefined).send("GET", "/api/v1/session", undefined, asSession(cookie))).status,
      ).toBe(401);
      expect(await server.api.as(token).refused("GET", "/api/v1/devices")).toEqual([401, "unauthenticated"]);
    });
  });
});

describe("idempotency keys", () => {
  it("make a repeated write happen once", async () => {
    const headers = { "idempotency-key": "key-1" };
    const send = (): Promise<Response> =>
      server.api.send("POST", "/api/v1/enrolment-tokens", { uses: 2 }, headers);
    const first = (await (await send()).json()) as { token: string };
    const again = await send();
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect(await again.json()).toEqual(first);
    expect(await server.api.refused("POST", "/api/v1/enrolment-tokens", { uses: 3 }, headers)).toEqual([
      409,
      "idempotency_conflict",
    ]);
    expect(
      await server.api.refused(
        "POST",
        "/api/v1/enrolment-tokens",
        {},
        { "idempotency-key": "x".repeat(129) },
      ),
    ).toEqual([400, "invalid_argument"]);
    const other = await server.api
      .as(tokens.operator)
      .send("POST", "/api/v1/enrolment-tokens", { uses: 3 }, headers);
    expect(other.status).toBe(201);
  });
});

describe("artifacts", () => {
  const bytes = randomBytes(600_000);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const path = `/artifacts/sha256/${sha256}`;

  beforeAll(async () => {
    expect((await server.api.as(tokens.operator).send("PUT", `/api/v1${path}`, bytes)).status).toBe(201);
    expect((await server.api.as(tokens.operator).send("PUT", `/api/v1${path}`, bytes)).status).toBe(200);
  });

  it("are served to devices and people, and to nobody else", async () => {
    for (const credential of [device.credential, tokens.viewer]) {
      const response = await server.api.as(credential).send("GET", path);
      expect(response.status).toBe(200);
      expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    }
    expect(await server.api.as(undefined).refused("GET", path)).toEqual([401, "unauthenticated"]);
    expect(await server.api.as(device.credential).refused("PUT", `/api/v1${path}`, bytes)).toEqual([
      403,
      "forbidden",
    ]);
    expect(await server.api.refused("GET", `/artifacts/sha256/${"0".repeat(64)}`)).toEqual([
      404,
      "not_found",
    ]);
  });

  it("go on where a download was cut", async () => {
    const get = (headers: Record<string, string>): Promise<Response> =>
      server.api.send("GET", path, undefined, headers);
    const part = await get({ range: "bytes=100-199" });
    expect([part.status, part.headers.get("content-range")]).toEqual([206, "bytes 100-199/600000"]);
    expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(100, 200))).toBe(true);
    const rest = await get({ range: "bytes=599990-", "if-range": `"${sha256}"` });
    expect([rest.status, (await rest.arrayBuffer()).byteLength]).toEqual([206, 10]);
    const changed = await get({ range: "bytes=0-1", "if-range": '"other"' });
    expect([changed.status, (await changed.arrayBuffer()).byteLength]).toEqual([200, 600_000]);
    const beyond = await get({ range: "bytes=600000-" });
    expect([beyond.status, beyond.headers.get("content-range")]).toEqual([416, "bytes */600000"]);
    const head = await server.api.send("HEAD", path);
    expect([head.status, head.headers.get("content-length"), head.headers.get("accept-ranges")]).toEqual([
      200,
      "600000",
      "bytes",
    ]);
  });

  it("read a range as RFC 9110 says", () => {
    const cases: [header: string | undefined, expected: ReturnType<typeof rangeOf>][] = [
      [undefined, undefined],
      ["bytes=0-0", { from: 0, to: 1 }],
      ["bytes=90-200", { from: 90, to: 100 }],
      ["bytes=-5", { from: 95, to: 100 }],
      ["bytes=-500", { from: 0, to: 100 }],
      ["bytes=-0", "unsatisfiable"],
      ["bytes=100-", "unsatisfiable"],
      ["bytes=5-4", undefined],
      ["bytes=-", undefined],
      ["bytes=0-1,5-6", undefined],
      ["items=0-1", undefined],
    ];
    for (const [header, expected] of cases)
      expect([header, rangeOf(header, undefined, '"e"', 100)]).toEqual([header, expected]);
  });
});

describe("groups and policies", () => {
  it("reach the devices that they are about", async () => {
    const cam = await enrol(server, "cam-policy", { site: "lyon" });
    const connected = await TestDevice.connect(server, cam);
    try {
      await server.api.ok<Group>("PUT", "/api/v1/groups/lyon", { devices: null, selector: { site: "lyon" } });
      expect(await server.api.ok("GET", "/api/v1/groups/lyon/devices")).toMatchObject({
        items: ["cam-policy"],
      });
      expect(await server.api.ok("GET", "/api/v1/groups/all/devices")).toMatchObject({
        items: ["cam-1", "cam-policy"],
      });
      await server.api.ok("PATCH", "/api/v1/policies/groups/lyon", { worthMin: 0.7, randomShare: 0.5 });
      await server.api.ok("PATCH", "/api/v1/policies/devices/cam-policy", { randomShare: 0.25 });
      expect(await server.api.ok("GET", "/api/v1/policies/effective/cam-policy")).toMatchObject({
        worthMin: 0.7,
        randomShare: 0.25,
      });
      expect(await server.api.ok("GET", "/api/v1/policies/effective/cam-1")).toMatchObject({
        worthMin: 0.3,
        randomShare: 0.01,
      });
      const desired = (): number =>
        connected.received.filter(({ topic }) => topic.endsWith("desired")).length;
      await until("told twice more", () => desired() >= 3);
      expect(await server.api.ok("GET", "/api/v1/devices/cam-policy")).toMatchObject({ desiredRevision: 3 });
    } finally {
      await connected.end();
    }
  });
});

describe("live streams", () => {
  async function reader(path: string, token: string): Promise<{ next(): Promise<string>; close(): void }> {
    const abort = new AbortController();
    const response = await fetch(server.httpUrl + path, {
      headers: { authorization: `Bearer ${token}` },
      signal: abort.signal,
    });
    expect(response.status).toBe(200);
    const decoder = new TextDecoder();
    const body = response.body!.getReader();
    return {
      next: async () => decoder.decode((await body.read()).value),
      close: () => abort.abort(),
    };
  }

  it("tell what changed", async () => {
    const stream = await reader("/api/v1/live", tokens.viewer);
    expect(await stream.next()).toBe(": connected\n\n");
    await server.api.ok("PUT", "/api/v1/devices/cam-1/tags", { site: "turin" });
    const text = await stream.next();
    expect(text).toContain("event: device\n");
    const event = JSON.parse(/data: (.*)\n/.exec(text)![1]!) as LiveEvent;
    expect(event).toEqual({ type: "device", id: "cam-1", device: "cam-1" });
    stream.close();
  });

  it("are limited for each caller and closed ones are forgotten", async () => {
    const streams = [];
    for (let count = 0; count < 10; count++) streams.push(await reader("/api/v1/live", tokens.labeler));
    expect(await server.api.as(tokens.labeler).refused("GET", "/api/v1/live")).toEqual([429, "rate_limited"]);
    for (const stream of streams) stream.close();
    await until("one more", async () => {
      const response = await server.api.as(tokens.labeler).send("GET", "/api/v1/live");
      await response.body?.cancel();
      return response.status === 200;
    });
  });

  it("show the traffic to administrators", async () => {
    expect(await server.api.as(tokens.operator).refused("GET", "/api/v1/tap")).toEqual([403, "forbidden"]);
    expect(await server.api.refused("GET", "/api/v1/tap?kind=nothing")).toEqual([400, "invalid_argument"]);
    const cam = await TestDevice.connect(server, device);
    const tap = await reader("/api/v1/tap?device=cam-1&kind=presence", server.adminToken!);
    await cam.publish(
      "presence",
      encodeMessage("presence", { online: true, boot: 9, agentVersion: "1" }),
      true,
    );
    expect(JSON.parse(await tap.next())).toMatchObject({
      device: "cam-1",
      kind: "presence",
      message: { online: true, boot: 9 },
    });
    tap.close();
    await cam.end();
  });
});

describe("the server's pages", () => {
  it("describe the API with a document and a page that loads nothing from elsewhere", async () => {
    const document = await server.api.ok<{ openapi: string; paths: Record<string, unknown> }>(
      "GET",
      "/api/openapi.json",
    );
    expect(document.openapi).toBe("3.1.0");
    expect(document.paths).toHaveProperty(["/api/v1/devices/{device}"]);
    const page = await server.api.as(undefined).send("GET", "/api/docs");
    const html = await page.text();
    expect(html).not.toMatch(/https?:\/\//);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'self'");
    for (const [, path] of html.matchAll(/(?:src|href)="([^"]+)"/g)) {
      expect([path, (await server.api.as(undefined).send("GET", path!)).status]).toEqual([path, 200]);
    }
    expect(await server.api.refused("GET", "/api/docs/package.json")).toEqual([404, "not_found"]);
  });

  it("say that it is well, and count", async () => {
    expect(await server.api.as(undefined).ok("GET", "/healthz")).toMatchObject({ status: "ok" });
    expect(await server.api.as(undefined).refused("GET", "/metrics")).toEqual([401, "unauthenticated"]);
    const metrics = await (await server.api.as(tokens.viewer).send("GET", "/metrics")).text();
    expect(metrics).toContain('fieldloop_broker{kind="takeovers"}');
    expect(metrics).toContain('fieldloop_ingest{kind="predictions"}');
  });

  it("never leave the console's folder", async () => {
    for (const path of [
      "/..%2f..%2fpackage.json",
      "/%2e%2e/%2e%2e/package.json",
      "/assets/..%2f..%2f..%2fpackage.json",
      "/%00",
      "/%ff",
    ]) {
      const response = await fetch(server.httpUrl + path);
      expect([path, (await response.text()).includes('"name"')]).toEqual([path, false]);
    }
  });
});
