import { createHash } from "node:crypto";
import { connect } from "node:net";
import type { ErrorCode, Role } from "@fieldloop/protocol";
import { afterEach, describe, expect, it } from "vitest";
import { TEST_FACTS, type Request } from "../kit/api.js";
import { until } from "../kit/wait.js";
import type { Stage } from "./stage.js";

interface Write {
  readonly method: "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  /** Least role that may; absent where anyone may. */
  readonly role?: Role;
  /** Whether it takes a JSON body. */
  readonly json: boolean;
}

const SHA = "0".repeat(64);

/** Every route that writes. A test holds it against the server's own OpenAPI document. */
const WRITES: readonly Write[] = [
  { method: "POST", path: "/api/v1/session", json: true },
  { method: "DELETE", path: "/api/v1/session", role: "viewer", json: false },
  { method: "POST", path: "/api/v1/enrol", json: true },
  { method: "POST", path: "/api/v1/tokens", role: "admin", json: true },
  { method: "DELETE", path: "/api/v1/tokens/nobody", role: "admin", json: false },
  { method: "POST", path: "/api/v1/enrolment-tokens", role: "operator", json: true },
  { method: "PUT", path: "/api/v1/devices/control/tags", role: "operator", json: true },
  { method: "PUT", path: "/api/v1/devices/control/suspension", role: "operator", json: true },
  { method: "POST", path: "/api/v1/devices/control/commands", role: "operator", json: true },
  { method: "PUT", path: "/api/v1/groups/some", role: "operator", json: true },
  { method: "DELETE", path: "/api/v1/groups/some", role: "operator", json: false },
  { method: "PATCH", path: "/api/v1/policies/default", role: "operator", json: true },
  { method: "PATCH", path: "/api/v1/policies/groups/all", role: "operator", json: true },
  { method: "PATCH", path: "/api/v1/policies/devices/control", role: "operator", json: true },
  { method: "POST", path: "/api/v1/models/tiny/versions", role: "operator", json: true },
  { method: "POST", path: "/api/v1/datasets", role: "labeler", json: true },
  { method: "POST", path: "/api/v1/datasets/dst_none/snapshots", role: "labeler", json: false },
  { method: "POST", path: "/api/v1/evaluations", role: "operator", json: true },
  { method: "POST", path: "/api/v1/rollouts", role: "operator", json: true },
  { method: "POST", path: "/api/v1/rollouts/rol_none/actions", role: "operator", json: true },
  { method: "POST", path: "/api/v1/samples/smp_control0001/annotations", role: "labeler", json: true },
  { method: "PATCH", path: "/api/v1/samples/smp_control0001", role: "labeler", json: true },
  { method: "POST", path: "/api/v1/training-runs", role: "operator", json: true },
  { method: "POST", path: "/api/v1/training-runs/trn_none/cancel", role: "operator", json: false },
  { method: "PUT", path: `/api/v1/artifacts/sha256/${SHA}`, role: "operator", json: false },
  { method: "POST", path: "/api/v1/webhooks", role: "admin", json: true },
  { method: "PATCH", path: "/api/v1/webhooks/whk_none", role: "admin", json: true },
  { method: "DELETE", path: "/api/v1/webhooks/whk_none", role: "admin", json: false },
  { method: "POST", path: "/api/v1/webhooks/whk_none/test", role: "admin", json: false },
  {
    method: "POST",
    path: "/api/v1/webhooks/whk_none/deliveries/msg_none/resend",
    role: "admin",
    json: false,
  },
  { method: "POST", path: "/api/v1/trust/keys", role: "admin", json: true },
  { method: "POST", path: "/api/v1/trust/director", role: "admin", json: false },
  { method: "POST", path: "/api/v1/trust/renewals", role: "admin", json: true },
  { method: "POST", path: "/api/v1/trust/requests", role: "admin", json: true },
  { method: "DELETE", path: "/api/v1/trust/requests/open", role: "admin", json: false },
  { method: "POST", path: "/api/v1/trust/signatures", role: "admin", json: true },
];

const BELOW: Readonly<Record<Role, Role | undefined>> = {
  viewer: undefined,
  labeler: "viewer",
  operator: "labeler",
  admin: "operator",
};
const BIG = Buffer.alloc(1024 * 1024 + 1, 0x20);
const JSON_TYPE = { "content-type": "application/json" };

interface Row extends Request {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly as?: Role | "nobody" | "device";
  readonly status: number;
  readonly code?: ErrorCode;
}

const FACTS_BODY = { token: "fle_unknown", facts: TEST_FACTS };
const ROLLOUT = {
  change: { kind: "package", model: "tiny", version: 1 },
  target: { group: "all" },
  forceReason: "a reason that is long enough",
};

function body(
  name: string,
  method: string,
  path: string,
  value: unknown,
  code: ErrorCode,
  status = 400,
): Row {
  return { name: `${method} ${path}: ${name}`, method, path, body: value, status, code };
}

function read(path: string, status: number, code?: ErrorCode, headers: Request["headers"] = {}): Row {
  return {
    name: `GET ${path} ${JSON.stringify(headers)}`,
    method: "GET",
    path,
    headers,
    status,
    ...(code ? { code } : {}),
  };
}

/** Fields of bodies, one wrong thing each. */
const FIELDS: readonly Row[] = [
  body("no address", "POST", "/api/v1/webhooks", {}, "invalid_body"),
  body("a file", "POST", "/api/v1/webhooks", { url: "file:///etc/passwd" }, "invalid_body"),
  body("this machine", "POST", "/api/v1/webhooks", { url: "https://127.0.0.1/x" }, "invalid_argument"),
  body(
    "a cloud's metadata",
    "POST",
    "/api/v1/webhooks",
    { url: "https://169.254.169.254/" },
    "invalid_argument",
  ),
  body("this machine in IPv6", "POST", "/api/v1/webhooks", { url: "https://[::1]/" }, "invalid_argument"),
  body(
    "a mapped address",
    "POST",
    "/api/v1/webhooks",
    { url: "https://[::ffff:10.0.0.1]/" },
    "invalid_argument",
  ),
  body("a decimal address", "POST", "/api/v1/webhooks", { url: "https://2130706433/" }, "invalid_argument"),
  body("plain http", "POST", "/api/v1/webhooks", { url: "http://example.com/" }, "invalid_argument"),
  body("a password", "POST", "/api/v1/webhooks", { url: "https://a:b@example.com/" }, "invalid_argument"),
  body(
    "an event that there is not",
    "POST",
    "/api/v1/webhooks",
    { url: "https://example.com/", events: ["everything"] },
    "invalid_body",
  ),
  body("nobody's", "DELETE", "/api/v1/webhooks/whk_none", undefined, "not_found", 404),
  body("role nobody has", "POST", "/api/v1/tokens", { name: "x", role: "root" }, "invalid_body"),
  body("a name with a path", "POST", "/api/v1/tokens", { name: "../x", role: "viewer" }, "invalid_body"),
  body("a name of 300", "POST", "/api/v1/tokens", { name: "x".repeat(300), role: "viewer" }, "invalid_body"),
  body(
    "a name that is taken",
    "POST",
    "/api/v1/tokens",
    { name: "the-viewer", role: "viewer" },
    "already_exists",
    409,
  ),
  body("nobody's", "DELETE", "/api/v1/tokens/nobody", undefined, "not_found", 404),
  body("no uses", "POST", "/api/v1/enrolment-tokens", { uses: 0 }, "invalid_body"),
  body("half a use", "POST", "/api/v1/enrolment-tokens", { uses: 1.5 }, "invalid_body"),
  body("a life of a year", "POST", "/api/v1/enrolment-tokens", { ttlSeconds: 31_536_000 }, "invalid_body"),
  body("text for a number", "POST", "/api/v1/enrolment-tokens", { ttlSeconds: "900" }, "invalid_body"),
  body("1e999", "POST", "/api/v1/enrolment-tokens", '{"uses":1e999}', "unsupported_media_type", 415),
  body("no facts", "POST", "/api/v1/enrol", { token: "fle_x" }, "invalid_body"),
  body("an unknown token", "POST", "/api/v1/enrol", FACTS_BODY, "enrolment_refused", 403),
  body(
    "a device id with a path",
    "POST",
    "/api/v1/enrol",
    { ...FACTS_BODY, device: "../control" },
    "invalid_body",
  ),
  body(
    "a device id with a wildcard",
    "POST",
    "/api/v1/enrol",
    { ...FACTS_BODY, device: "+" },
    "invalid_body",
  ),
  body("a device id with NUL", "POST", "/api/v1/enrol", { ...FACTS_BODY, device: "a\0b" }, "invalid_body"),
  body(
    "65 tags",
    "POST",
    "/api/v1/enrol",
    { ...FACTS_BODY, tags: Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`t${at}`, ""])) },
    "invalid_body",
  ),
  body(
    "a million cores",
    "POST",
    "/api/v1/enrol",
    { token: "fle_x", facts: { ...TEST_FACTS, cpuCount: 1e6 } },
    "invalid_body",
  ),
  body("an unknown device", "PUT", "/api/v1/devices/nobody/tags", { a: "b" }, "not_found", 404),
  body("a tag that is a number", "PUT", "/api/v1/devices/control/tags", { site: 1 }, "invalid_body"),
  body("a tag key with capitals", "PUT", "/api/v1/devices/control/tags", { SITE: "x" }, "invalid_body"),
  body("a tag of 129", "PUT", "/api/v1/devices/control/tags", { site: "x".repeat(129) }, "invalid_body"),
  body("null", "PUT", "/api/v1/devices/control/suspension", { suspended: null }, "invalid_body"),
  body(
    "a command of no kind",
    "POST",
    "/api/v1/devices/control/commands",
    { kind: "reboot" },
    "invalid_body",
  ),
  body(
    "a capture of 101",
    "POST",
    "/api/v1/devices/control/commands",
    { kind: "capture", count: 101 },
    "invalid_body",
  ),
  body(
    "a device that is not connected",
    "POST",
    "/api/v1/devices/nobody/commands",
    { kind: "report_state" },
    "not_found",
    404,
  ),
  body(
    "list and selector",
    "PUT",
    "/api/v1/groups/some",
    { devices: ["control"], selector: { a: "b" } },
    "invalid_argument",
  ),
  body("neither", "PUT", "/api/v1/groups/some", { devices: null, selector: null }, "invalid_argument"),
  body(
    "an unknown device",
    "PUT",
    "/api/v1/groups/some",
    { devices: ["nobody"], selector: null },
    "not_found",
    404,
  ),
  body(
    "a name with capitals",
    "PUT",
    "/api/v1/groups/Some",
    { devices: ["control"], selector: null },
    "invalid_argument",
  ),
  body("no such group", "DELETE", "/api/v1/groups/none", undefined, "not_found", 404),
  body("a share above 1", "PATCH", "/api/v1/policies/default", { randomShare: 2 }, "invalid_body"),
  body(
    "an interval of 0",
    "PATCH",
    "/api/v1/policies/default",
    { predictionsIntervalSeconds: 0 },
    "invalid_body",
  ),
  body("bytes below 0", "PATCH", "/api/v1/policies/devices/control", { bytesPerHour: -1 }, "invalid_body"),
  body("no such device", "PATCH", "/api/v1/policies/devices/nobody", { randomShare: 0.1 }, "not_found", 404),
  body("no such group", "PATCH", "/api/v1/policies/groups/none", { randomShare: 0.1 }, "not_found", 404),
  body("no hash", "POST", "/api/v1/models/tiny/versions", { manifestSha256: "abc" }, "invalid_body"),
  body(
    "a hash in capitals",
    "POST",
    "/api/v1/models/tiny/versions",
    { manifestSha256: "A".repeat(64) },
    "invalid_body",
  ),
  body("nothing uploaded", "POST", "/api/v1/models/tiny/versions", { manifestSha256: SHA }, "not_found", 404),
  body(
    "a model name with a path",
    "POST",
    "/api/v1/models/..%2ftiny/versions",
    { manifestSha256: SHA },
    "invalid_argument",
  ),
  body("no name", "POST", "/api/v1/datasets", { name: "  ", model: "tiny" }, "invalid_body"),
  body("a model name with a space", "POST", "/api/v1/datasets", { name: "x", model: "a b" }, "invalid_body"),
  body(
    "version 0",
    "POST",
    "/api/v1/datasets",
    { name: "x", model: "tiny", query: { labelled: true, versions: [0] } },
    "invalid_body",
  ),
  body("no such dataset", "POST", "/api/v1/datasets/dst_none/snapshots", undefined, "not_found", 404),
  body("an id with quotes", "POST", "/api/v1/datasets/dst_'or'1/snapshots", undefined, "invalid_argument"),
  body(
    "no such version",
    "POST",
    "/api/v1/evaluations",
    { model: "tiny", base: 1, candidate: 2, snapshot: SHA },
    "not_found",
    404,
  ),
  body(
    "version below 0",
    "POST",
    "/api/v1/evaluations",
    { model: "tiny", base: -1, candidate: 2, snapshot: SHA },
    "invalid_body",
  ),
  body("no such version", "POST", "/api/v1/rollouts", ROLLOUT, "not_found", 404),
  body(
    "a reason too short",
    "POST",
    "/api/v1/rollouts",
    { ...ROLLOUT, forceReason: "short" },
    "invalid_body",
  ),
  body("no waves", "POST", "/api/v1/rollouts", { ...ROLLOUT, waves: [] }, "invalid_body"),
  body(
    "51 waves",
    "POST",
    "/api/v1/rollouts",
    { ...ROLLOUT, waves: Array.from({ length: 51 }, () => ({ count: 1 })) },
    "invalid_body",
  ),
  body(
    "a wave of 0 percent",
    "POST",
    "/api/v1/rollouts",
    { ...ROLLOUT, waves: [{ percent: 0 }] },
    "invalid_body",
  ),
  body(
    "a target of no device",
    "POST",
    "/api/v1/rollouts",
    { ...ROLLOUT, target: { devices: [] } },
    "invalid_body",
  ),
  body("no such rollout", "POST", "/api/v1/rollouts/rol_none/actions", { action: "start" }, "not_found", 404),
  body("no such action", "POST", "/api/v1/rollouts/rol_none/actions", { action: "explode" }, "invalid_body"),
  body(
    "an empty label",
    "POST",
    "/api/v1/samples/smp_control0001/annotations",
    { label: "" },
    "invalid_body",
  ),
  body(
    "a label of 129",
    "POST",
    "/api/v1/samples/smp_control0001/annotations",
    { label: "x".repeat(129) },
    "invalid_body",
  ),
  body(
    "no such sample",
    "POST",
    "/api/v1/samples/smp_nothere000/annotations",
    { label: "bar" },
    "not_found",
    404,
  ),
  body("a status of no kind", "PATCH", "/api/v1/samples/smp_control0001", { status: "gone" }, "invalid_body"),
  body(
    "an id with a path",
    "PATCH",
    "/api/v1/samples/..%2f..%2fx",
    { status: "ignored" },
    "invalid_argument",
  ),
  body(
    "a batch of 0",
    "POST",
    "/api/v1/training-runs",
    { model: "tiny", baseVersion: 1, snapshot: SHA, settings: { batch: 0 } },
    "invalid_body",
  ),
  body(
    "a rate of 2",
    "POST",
    "/api/v1/training-runs",
    { model: "tiny", baseVersion: 1, snapshot: SHA, settings: { rate: 2 } },
    "invalid_body",
  ),
  body(
    "no such base",
    "POST",
    "/api/v1/training-runs",
    { model: "tiny", baseVersion: 1, snapshot: SHA },
    "not_found",
    404,
  ),
  body("no such run", "POST", "/api/v1/training-runs/trn_none/cancel", undefined, "not_found", 404),
  body(
    "keys of the prototype, as text",
    "PUT",
    "/api/v1/devices/spare/tags",
    '{"__proto__":"x"}',
    "unsupported_media_type",
    415,
  ),
  {
    ...body(
      "not UTF-8",
      "POST",
      "/api/v1/tokens",
      Buffer.from('{"name":"\xff","role":"viewer"}', "latin1"),
      "invalid_body",
    ),
    headers: JSON_TYPE,
  },
  {
    ...body("1e999", "POST", "/api/v1/enrolment-tokens", Buffer.from('{"uses":1e999}'), "invalid_body"),
    headers: JSON_TYPE,
  },
];

/** Paths, cursors, ids, ranges and credentials. */
const REQUESTS: readonly Row[] = [
  read("/api/v1/devices?limit=0", 400, "invalid_argument"),
  read("/api/v1/devices?limit=501", 400, "invalid_argument"),
  read("/api/v1/devices?limit=ten", 400, "invalid_argument"),
  read(`/api/v1/devices?cursor=${"x".repeat(201)}`, 400, "invalid_argument"),
  read("/api/v1/audit?cursor=yesterday", 400, "invalid_argument"),
  read("/api/v1/audit?cursor=-1", 400, "invalid_argument"),
  read("/api/v1/samples?cursor=%00", 400, "invalid_argument"),
  read("/api/v1/samples?cursor=e30", 400, "invalid_argument"),
  read("/api/v1/samples?order=random", 400, "invalid_argument"),
  read("/api/v1/samples?after=1e400", 400, "invalid_argument"),
  read("/api/v1/rollouts?cursor=9e99", 400, "invalid_argument"),
  read("/api/v1/evaluations?candidate=1.5", 400, "invalid_argument"),
  read("/api/v1/devices/nobody", 404, "not_found"),
  read("/api/v1/devices/control%00", 400, "invalid_argument"),
  read("/api/v1/devices/%ff", 400, "invalid_argument"),
  read("/api/v1/devices/..%2f..%2fetc%2fpasswd", 400, "invalid_argument"),
  read("/api/v1/devices/control/series?bucketMs=0", 400, "invalid_argument"),
  read("/api/v1/devices/control/series?from=0&to=8640000000000000&bucketMs=1", 413, "limit_exceeded"),
  read("/api/v1/devices/control/predictions?limit=1001", 400, "invalid_argument"),
  read("/api/v1/devices/control/events?type=none", 400, "invalid_argument"),
  read("/api/v1/models/No", 400, "invalid_argument"),
  read("/api/v1/models/tiny/versions/0", 400, "invalid_argument"),
  read("/api/v1/models/tiny/versions/1e9", 400, "invalid_argument"),
  read("/api/v1/snapshots/..", 404, "not_found"),
  read("/api/v1/tap?kind=none", 400, "invalid_argument"),
  read("/api/v2/devices", 404, "not_found"),
  read("/api/", 404, "not_found"),
  read("/%2e%2e/%2e%2e/package.json", 404, "not_found"),
  read("/..%2f..%2f..%2fpackage.json", 404, "not_found"),
  read("/assets/%2e%2e%5c%2e%2e%5cpackage.json", 404, "not_found"),
  read("/../../../../../../etc/passwd.txt", 404, "not_found"),
  read("/index.html%00.js", 404, "not_found"),
  read("/%c0%ae%c0%ae/package.json", 404, "not_found"),
  read("/artifacts/sha256/..%2f..%2ffleet-key.json", 400, "invalid_argument"),
  read(`/artifacts/sha256/${"A".repeat(64)}`, 400, "invalid_argument"),
  read(`/artifacts/sha256/${SHA}`, 404, "not_found"),
  read(`/artifacts/delta/..%2f..%2ffleet-key.json/${SHA}`, 400, "invalid_argument"),
  read(`/artifacts/delta/${SHA}/${"A".repeat(64)}`, 400, "invalid_argument"),
  read(`/artifacts/delta/${SHA}/${SHA}`, 404, "not_found"),
  read("/tuf/metadata/..%2f..%2ffleet-key.json", 404, "not_found"),
  read("/tuf/metadata/0.root.json", 404, "not_found"),
  read("/tuf/metadata/1.timestamp.json", 404, "not_found"),
  read("/tuf/metadata/99.root.json", 404, "not_found"),
  read("/tuf/metadata/%", 404, "not_found"),
  read("/tuf/targets/fieldloop/director.json", 404, "not_found"),
  read(`/tuf/targets/fieldloop/${SHA}.director.json`, 404, "not_found"),
  read(`/tuf/targets/../${SHA}.fleet-key.json`, 404, "not_found"),
  read("/tuf/targets/%ff%fe", 404, "not_found"),
  {
    ...read("/tuf/metadata/timestamp.json", 401, "unauthenticated"),
    name: "metadata without a credential",
    as: "nobody",
  },
  { ...read("/api/v1/trust", 403, "forbidden"), name: "a device asks for the trust", as: "device" },
  { ...read("/api/v1/devices", 401, "unauthenticated"), name: "no credential", as: "nobody" },
  {
    ...read("/api/v1/devices", 401, "unauthenticated", { authorization: "Basic YWRtaW46YWRtaW4=" }),
    as: "nobody",
  },
  { ...read("/api/v1/devices", 401, "unauthenticated", { authorization: "Bearer" }), as: "nobody" },
  {
    ...read("/api/v1/devices", 401, "unauthenticated", { authorization: `Bearer ${"x".repeat(257)}` }),
    as: "nobody",
  },
  { ...read("/api/v1/devices", 401, "unauthenticated", { authorization: "Bearer a b" }), as: "nobody" },
  {
    ...read("/api/v1/devices", 401, "unauthenticated", { cookie: "fieldloop_session=fls_forged" }),
    as: "nobody",
  },
  { ...read("/api/v1/devices", 403, "forbidden"), name: "a device asks for the fleet", as: "device" },
  { ...read("/api/v1/samples", 403, "forbidden"), name: "a device asks for samples", as: "device" },
  { ...read("/api/v1/live", 403, "forbidden"), name: "a device listens to live events", as: "device" },
  { ...read("/metrics", 403, "forbidden"), name: "a device asks for metrics", as: "device" },
  { ...read("/api/v1/tap", 403, "forbidden"), name: "an operator taps", as: "operator" },
  { ...read("/api/v1/tokens", 403, "forbidden"), name: "an operator lists tokens", as: "operator" },
  {
    name: "a key with a space",
    method: "POST",
    path: "/api/v1/enrolment-tokens",
    body: {},
    headers: { "idempotency-key": "a b" },
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "a key of 129",
    method: "POST",
    path: "/api/v1/enrolment-tokens",
    body: {},
    headers: { "idempotency-key": "x".repeat(129) },
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "a body that is no artifact of this hash",
    method: "PUT",
    path: `/api/v1/artifacts/sha256/${SHA}`,
    body: "hello",
    status: 400,
    code: "package_hash_mismatch",
  },
  {
    name: "an artifact under a path",
    method: "PUT",
    path: "/api/v1/artifacts/sha256/..%2fadmin-token",
    body: "hello",
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "an artifact of 1 GB, announced",
    method: "PUT",
    path: `/api/v1/artifacts/sha256/${SHA}`,
    body: "hello",
    headers: { "content-length": String(2 ** 30) },
    status: 413,
    code: "limit_exceeded",
  },
  {
    name: "a method that is none",
    method: "PROPFIND",
    path: "/api/v1/devices",
    status: 404,
    code: "not_found",
  },
  {
    name: "a write where there is only reading",
    method: "POST",
    path: "/api/v1/overview",
    body: {},
    status: 404,
    code: "not_found",
  },
];

export function httpRows(stage: () => Stage): void {
  describe("HTTP", () => {
    afterEach(() => stage().intact());
    const ask = async (row: Row): Promise<void> => {
      stage().count("HTTP");
      const api =
        row.as === "nobody"
          ? stage().admin.as(undefined)
          : row.as === "device"
            ? stage().admin.as(stage().controlIdentity.credential)
            : stage().as(row.as ?? "admin");
      const answer = await api.send(row.method, row.path, row);
      expect([answer.status, answer.code], answer.text.slice(0, 300)).toEqual([row.status, row.code]);
      expect(answer.text).not.toMatch(/\bat [^ ]+\.js:|node_modules|root:x:/);
    };

    it("knows every route that writes", async () => {
      const document = await stage().admin.ok<{ paths: Record<string, Record<string, unknown>> }>(
        "GET",
        "/api/openapi.json",
      );
      const documented = Object.entries(document.paths).flatMap(([path, methods]) =>
        Object.keys(methods)
          .filter((method) => method !== "get")
          .map((method) => `${method.toUpperCase()} ${path}`),
      );
      const known = WRITES.map(({ method, path }) => ({ method, parts: path.split("/") }));
      const missing = documented.filter((route) => {
        const [method, path = ""] = route.split(" ");
        const parts = path.split("/");
        return !known.some(
          (write) =>
            write.method === method &&
            write.parts.length === parts.length &&
            parts.every((part, at) => part.startsWith("{") || part === write.parts[at]),
        );
      });
      expect(missing).toEqual([]);
    });

    for (const write of WRITES) {
      const { method, path, role, json } = write;
      const rows: Row[] = [];
      const add = (
        name: string,
        status: number,
        code: ErrorCode,
        rest: Omit<Partial<Row>, "name"> = {},
      ): void => {
        rows.push({
          name: `${method} ${path}: ${name}`,
          method,
          path,
          status,
          code,
          ...(json ? { body: {} } : {}),
          ...rest,
        });
      };
      if (role === "viewer") add("without a credential", 401, "unauthenticated", { as: "nobody" });
      else if (role !== undefined) {
        add("without a credential", 401, "unauthenticated", { as: "nobody" });
        add("as a device", 403, "forbidden", { as: "device" });
        const below = BELOW[role];
        if (below) add(`as a ${below}`, 403, "forbidden", { as: below });
      }
      if (json) {
        add("text", 415, "unsupported_media_type", { body: "{}", headers: { "content-type": "text/plain" } });
        add("a form", 415, "unsupported_media_type", {
          body: "a=b",
          headers: { "content-type": "application/x-www-form-urlencoded" },
        });
        add("broken JSON", 400, "invalid_body", { body: '{"a":', headers: JSON_TYPE });
        add("a list", 400, "invalid_body", { body: [1, 2, 3] });
        add("deep JSON", 400, "invalid_body", {
          body: "[".repeat(100_000) + "]".repeat(100_000),
          headers: JSON_TYPE,
        });
        add("above 1 MiB", 413, "limit_exceeded", { body: BIG, headers: JSON_TYPE });
        add("above 1 MiB in chunks", 413, "limit_exceeded", { body: BIG, headers: JSON_TYPE, chunked: true });
      }
      it.each(rows)("$name", ask);
    }

    it.each(FIELDS)("$name", ask);
    it.each(REQUESTS)("$name", ask);

    it.each([
      ["bytes=0-", 206, 11],
      ["bytes=-4", 206, 4],
      ["bytes=5-5", 206, 1],
      ["bytes=0-99999", 206, 11],
      ["bytes=11-", 416, 0],
      ["bytes=-0", 416, 0],
      ["bytes=5-2", 200, 11],
      ["bytes=abc", 200, 11],
      ["bytes=0-1,3-4", 200, 11],
      ["bytes=-1-2", 200, 11],
      ["lines=0-1", 200, 11],
      [`bytes=${"9".repeat(400)}-`, 200, 11],
    ])("Range: %s", async (range, status, bytes) => {
      stage().count("HTTP");
      const content = Buffer.from("hello world");
      const sha256 = createHash("sha256").update(content).digest("hex");
      await stage().admin.putArtifact(sha256, content);
      const answer = await stage().admin.send("GET", `/artifacts/sha256/${sha256}`, { headers: { range } });
      expect([answer.status, answer.bytes.length]).toEqual([status, bytes]);
    });

    it("Idempotency-Key: another body, another route, a repetition, and twenty at once", async () => {
      for (let row = 0; row < 4; row++) stage().count("HTTP");
      const post = (path: string, value: unknown, key: string) =>
        stage().admin.send("POST", path, { body: value, headers: { "idempotency-key": key } });
      const first = await post("/api/v1/enrolment-tokens", { uses: 1 }, "once");
      expect(first.status).toBe(201);
      const again = await post("/api/v1/enrolment-tokens", { uses: 1 }, "once");
      expect([again.status, again.text, again.headers["idempotent-replayed"]]).toEqual([
        201,
        first.text,
        "true",
      ]);
      expect((await post("/api/v1/enrolment-tokens", { uses: 2 }, "once")).code).toBe("idempotency_conflict");
      expect((await post("/api/v1/datasets", { name: "x", model: "tiny" }, "once")).code).toBe(
        "idempotency_conflict",
      );
      const together = await Promise.all(
        Array.from({ length: 20 }, () => post("/api/v1/enrolment-tokens", { uses: 3 }, "together")),
      );
      const made = together.filter((answer) => answer.status === 201).map((answer) => answer.text);
      expect(new Set(made).size).toBe(1);
      expect(
        together.filter((answer) => answer.status !== 201).every((answer) => answer.code === "conflict"),
      ).toBe(true);
    });

    it("enrolment tokens: used up, expired, and a device id that is taken costs no use", async () => {
      for (let row = 0; row < 3; row++) stage().count("HTTP");
      const { admin } = stage();
      const token = async (request: object) =>
        (await admin.ok<{ token: string }>("POST", "/api/v1/enrolment-tokens", request)).token;
      const enrol = (secret: string, device: string) =>
        admin
          .as(undefined)
          .send("POST", "/api/v1/enrol", { body: { token: secret, device, facts: TEST_FACTS } });
      const short = await token({ ttlSeconds: 1 });
      const single = await token({});
      expect((await enrol(single, "control")).code).toBe("already_exists");
      expect((await enrol(single, "enrolled-once")).status).toBe(201);
      expect((await enrol(single, "enrolled-twice")).code).toBe("enrolment_refused");
      await until("the token has expired", async () => {
        const answer = await enrol(short, "control");
        return answer.code === "enrolment_refused";
      });
    });

    it("keys of the prototype are no tags", async () => {
      stage().count("HTTP");
      await stage().admin.enrol("spare");
      const answer = await stage().admin.send("PUT", "/api/v1/devices/spare/tags", {
        body: '{"__proto__":"x","toString":"x"}',
        headers: JSON_TYPE,
      });
      expect([answer.status, answer.code]).toEqual([400, "invalid_body"]);
    });

    it("a write by cookie from another origin", async () => {
      stage().count("HTTP");
      const { admin } = stage();
      const session = await admin
        .as(undefined)
        .send("POST", "/api/v1/session", { body: { token: admin.token } });
      const cookie = String(session.headers["set-cookie"]).split(";")[0]!;
      const headers = { cookie, origin: "https://evil.example" };
      const answer = await admin
        .as(undefined)
        .send("POST", "/api/v1/tokens", { body: { name: "x", role: "admin" }, headers });
      expect([answer.status, answer.code]).toEqual([403, "forbidden"]);
    });

    it.each([
      ["no Host", "GET /api/v1/devices HTTP/1.1\r\n\r\n", 400],
      ["a Host that is none", "GET /api/v1/devices HTTP/1.1\r\nHost: a b\r\n\r\n", 400],
      [
        "two lengths",
        "POST /api/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        400,
      ],
      [
        "a length and chunks (request smuggling)",
        "POST /api/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
      ],
      ["headers of 20 KB", `GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ${"a".repeat(20_480)}\r\n\r\n`, 431],
      ["no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400],
      ["NUL in the path", "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400],
    ])("bytes: %s", async (_name, bytes, status) => {
      stage().count("HTTP");
      expect(await rawStatus(stage().server.httpPort, bytes)).toBe(status);
    });

    it.each([
      ["an artifact", `PUT /api/v1/artifacts/sha256/${SHA}`],
      ["a JSON body", "POST /api/v1/enrolment-tokens"],
      ["a JSON body with an idempotency key", "POST /api/v1/enrolment-tokens", "Idempotency-Key: cut\r\n"],
    ])("an upload that is cut: %s", async (_name, line, header = "") => {
      stage().count("HTTP");
      const socket = connect(stage().server.httpPort, "127.0.0.1");
      socket.on("error", () => undefined);
      socket.write(
        `${line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${stage().admin.token}\r\n${header}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"uses"`,
      );
      await new Promise((resolve) => setTimeout(resolve, 50));
      socket.destroy();
      const { code } = await stage().admin.send("GET", `/artifacts/sha256/${SHA}`);
      expect(code).toBe("not_found");
    });
  });
}

/** Guessing tokens slows the guesser, and nobody else behind the same address. Last of all, since it uses up the address's guesses. */
export function guessRows(stage: () => Stage): void {
  describe("guessing", () => {
    afterEach(() => stage().intact());

    it("is slowed after a few tries; right credentials still work", async () => {
      const { admin, controlIdentity } = stage();
      const guess = async (number: number): Promise<string | undefined> => {
        stage().count("HTTP");
        const secret = number % 2 === 0 ? `flt_guess${number}` : `fld.control.guess${number}`;
        return (await admin.as(secret).send("GET", "/api/v1/devices")).code;
      };
      for (let number = 0; number < 3; number++) expect(await guess(number)).toBe("unauthenticated");
      // At once: on a machine that is slow a guesser waits long enough between two tries.
      const codes = await Promise.all(Array.from({ length: 20 }, (_, at) => guess(3 + at)));
      expect(new Set(codes)).toContain("rate_limited");
      expect(codes.filter((code) => code !== "rate_limited" && code !== "unauthenticated")).toEqual([]);
      expect((await admin.send("GET", "/api/v1/devices")).status).toBe(200);
      // A fleet behind one address downloads its packages while somebody there guesses.
      const download = await admin.as(controlIdentity.credential).send("GET", `/artifacts/sha256/${SHA}`);
      expect(download.code).toBe("not_found");
    });
  });
}

/** The status line that raw bytes are answered with; 0 where the server only closes. */
function rawStatus(port: number, bytes: string): Promise<number> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes, "latin1"));
    let text = "";
    const finish = (): void => {
      socket.destroy();
      resolve(Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0));
    };
    socket.setTimeout(3_000, finish);
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (text.includes("\r\n\r\n")) finish();
    });
    socket.on("error", finish);
    socket.on("close", finish);
  });
}
