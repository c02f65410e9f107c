import { describe, expect, it } from "vitest";
import type { ErrorCode } from "@fieldloop/protocol";
import type { ElementType, Tensor } from "../backend.js";
import { contractModels } from "../contract/models.js";
import { SessionService } from "../node/oip-service.js";
import { ortNode } from "../node/ort.js";
import { OIP_LIMITS } from "./limits.js";
import { isOipProvider, parseOipProvider } from "./provider-name.js";
import { HEADER_LENGTH, splitBody } from "./rest-messages.js";
import { handleInference, type OipHttpRequest } from "./rest-server.js";
import { writeTensor } from "./rest-tensors.js";
import { tensorFromJsonData, tensorFromRaw, tensorToJsonData, tensorToRaw } from "./tensors.js";

const models = [...contractModels().values()].map(({ name, bytes }) => ({
  name,
  version: "7",
  open: () => ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" }),
}));
const service = new SessionService(models, { version: "1", platform: "onnxruntime_cpu" });
for (const name of ["several", "identity-string", "identity-float16", "identity-int64", "identity-float32"])
  await service.load(name);

async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: OipHttpRequest["headers"] = {},
): Promise<{
  status: number;
  headers: Readonly<Record<string, string>>;
  json: Record<string, unknown>;
  raw: Uint8Array;
}> {
  const bytes =
    body instanceof Uint8Array
      ? body
      : new TextEncoder().encode(body === undefined ? "" : JSON.stringify(body));
  const response = await handleInference(service, { method, path, headers, body: bytes });
  const whole = Buffer.concat(response.body);
  const length = Number(response.headers[HEADER_LENGTH] ?? whole.length);
  return {
    status: response.status,
    headers: response.headers,
    json: JSON.parse(whole.subarray(0, length).toString()) as Record<string, unknown>,
    raw: whole.subarray(length),
  };
}

const several = {
  inputs: [
    { name: "a", datatype: "FP32", shape: [2, 2], data: [1, 2, 3, 4] },
    {
      name: "b",
      datatype: "FP32",
      shape: [2, 2],
      data: [
        [5, 6],
        [7, 8],
      ],
    },
    { name: "keep", datatype: "BOOL", shape: [2, 2], data: [true, false, 1, 0] },
  ],
};

describe("REST form of the Open Inference Protocol", () => {
  it("says what it is, and what each model wants", async () => {
    expect((await ask("GET", "/v2")).json).toEqual({
      name: "fieldloop",
      version: "1",
      extensions: ["binary_tensor_data", "model_repository"],
    });
    expect((await ask("GET", "/v2/health/live")).json).toEqual({ live: true });
    expect((await ask("GET", "/v2/health/ready/")).json).toEqual({ ready: true });
    const { json } = await ask("GET", "/v2/models/several/versions/7");
    expect(json).toMatchObject({ name: "several", versions: ["7"], platform: "onnxruntime_cpu" });
    expect(json["inputs"]).toContainEqual({ name: "keep", datatype: "BOOL", shape: [2, 2] });
  });

  it("runs on JSON, rows nested or flat, and gives the request's id back", async () => {
    const { status, json } = await ask("POST", "/v2/models/several/infer", {
      id: "42",
      ...several,
      outputs: [{ name: "sum" }, { name: "picked" }],
    });
    expect(status).toBe(200);
    expect(json).toEqual({
      model_name: "several",
      model_version: "7",
      id: "42",
      outputs: [
        { name: "sum", datatype: "FP32", shape: [2, 2], data: [6, 8, 10, 12] },
        { name: "picked", datatype: "FP32", shape: [2, 2], data: [1, 6, 3, 8] },
      ],
    });
  });

  it("takes and gives raw tensors after the JSON", async () => {
    const values = new Uint8Array(Uint16Array.of(1, 2, 3, 4, 5, 6).buffer);
    const head = new TextEncoder().encode(
      JSON.stringify({
        inputs: [{ name: "x", datatype: "FP16", shape: [2, 3], parameters: { binary_data_size: 12 } }],
        outputs: [{ name: "y", parameters: { binary_data: true } }],
      }),
    );
    const { json, raw } = await ask(
      "POST",
      "/v2/models/identity-float16/infer",
      Buffer.concat([head, values]),
      {
        [HEADER_LENGTH]: String(head.length),
      },
    );
    expect(json["outputs"]).toEqual([
      { name: "y", datatype: "FP16", shape: [2, 3], parameters: { binary_data_size: 12 } },
    ]);
    expect([...raw]).toEqual([...values]);
  });

  it("loads, unloads and lists models", async () => {
    expect((await ask("GET", "/v2/models/gemm/ready")).status).toBe(503);
    expect((await ask("POST", "/v2/models/gemm/infer", { inputs: [] })).json).toMatchObject({
      code: "unavailable",
    });
    expect((await ask("POST", "/v2/repository/models/gemm/load")).status).toBe(200);
    expect((await ask("GET", "/v2/models/gemm/ready")).json).toEqual({ name: "gemm", ready: true });
    const listed = (await ask("POST", "/v2/repository/index", { ready: true })).json as unknown as unknown[];
    expect(listed).toContainEqual({ name: "gemm", version: "7", state: "READY", reason: "" });
    expect(listed).not.toContainEqual(expect.objectContaining({ name: "lstm" }));
    expect((await ask("POST", "/v2/repository/models/gemm/unload")).status).toBe(200);
    expect((await ask("GET", "/v2/models/gemm/ready")).status).toBe(503);
  });

  const one = (more: object): object => ({
    inputs: [{ name: "x", datatype: "FP32", shape: [2, 3], ...more }],
  });
  const infer = "/v2/models/identity-float32/infer";
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  const REFUSED: readonly [string, string, string, unknown, number, ErrorCode, OipHttpRequest["headers"]?][] =
    [
      ["an unknown path", "GET", "/v3", undefined, 404, "not_found"],
      ["an unknown model", "GET", "/v2/models/nothing", undefined, 404, "not_found"],
      ["an unknown version", "GET", "/v2/models/several/versions/8", undefined, 404, "not_found"],
      ["another method", "DELETE", "/v2/models/several", undefined, 405, "invalid_argument"],
      ["a broken escape", "GET", "/v2/models/%E0%A4%A", undefined, 400, "invalid_argument"],
      ["no JSON", "POST", infer, text("{"), 400, "invalid_body"],
      ["no UTF-8", "POST", infer, Uint8Array.of(0x22, 0xff, 0x22), 400, "invalid_body"],
      ["an abyss of brackets", "POST", infer, text("[".repeat(100_000)), 400, "invalid_body"],
      ["inputs that are no list", "POST", infer, { inputs: {} }, 400, "invalid_body"],
      [
        "too many inputs",
        "POST",
        infer,
        {
          inputs: new Array(OIP_LIMITS.tensorsMax + 1).fill({
            name: "x",
            datatype: "FP32",
            shape: [],
            data: [],
          }),
        },
        400,
        "invalid_body",
      ],
      ["an unknown data type", "POST", infer, one({ datatype: "BF16", data: [] }), 400, "tensor_invalid"],
      [
        "data beside raw data",
        "POST",
        infer,
        one({ data: [1, 2, 3, 4, 5, 6], parameters: { binary_data_size: 24 } }),
        400,
        "tensor_invalid",
      ],
      [
        "rows of unequal length",
        "POST",
        infer,
        one({
          data: [
            [1, 2, 3, 4],
            [5, 6],
          ],
        }),
        400,
        "tensor_invalid",
      ],
      [
        "rows of another shape",
        "POST",
        infer,
        one({
          data: [
            [1, 2],
            [3, 4],
            [5, 6],
          ],
        }),
        400,
        "tensor_invalid",
      ],
      ["too few elements", "POST", infer, one({ data: [1] }), 400, "tensor_invalid"],
      ["too many elements", "POST", infer, one({ data: [1, 2, 3, 4, 5, 6, 7] }), 400, "tensor_invalid"],
      ["no data", "POST", infer, one({}), 400, "tensor_invalid"],
      [
        "texts for numbers",
        "POST",
        infer,
        one({ data: ["1", "2", "3", "4", "5", "6"] }),
        400,
        "tensor_invalid",
      ],
      [
        "a negative size",
        "POST",
        infer,
        one({ shape: [-2, -3], data: [1, 2, 3, 4, 5, 6] }),
        400,
        "tensor_invalid",
      ],
      [
        "a fractional size",
        "POST",
        infer,
        one({ shape: [1.5, 4], data: [1, 2, 3, 4, 5, 6] }),
        400,
        "tensor_invalid",
      ],
      [
        "a claim of 2^40 elements",
        "POST",
        infer,
        one({ shape: [2 ** 20, 2 ** 20], data: [1] }),
        413,
        "limit_exceeded",
      ],
      [
        "another shape than the model's",
        "POST",
        infer,
        one({ shape: [6], data: [1, 2, 3, 4, 5, 6] }),
        400,
        "tensor_invalid",
      ],
      [
        "the same input twice",
        "POST",
        infer,
        { inputs: [...several.inputs, ...several.inputs] },
        400,
        "tensor_invalid",
      ],
      [
        "an input called __proto__",
        "POST",
        infer,
        text('{"inputs":[{"name":"__proto__","datatype":"FP32","shape":[1],"data":[1]}]}'),
        400,
        "tensor_invalid",
      ],
      ["a missing input", "POST", infer, { inputs: [] }, 400, "tensor_invalid"],
      [
        "an unknown output",
        "POST",
        "/v2/models/several/infer",
        { ...several, outputs: [{ name: "no" }] },
        400,
        "tensor_invalid",
      ],
      [
        "half floats as JSON",
        "POST",
        "/v2/models/identity-float16/infer",
        one({ datatype: "FP16", data: [1, 2, 3, 4, 5, 6] }),
        400,
        "tensor_invalid",
      ],
      [
        "an int64 that JSON rounded",
        "POST",
        "/v2/models/identity-int64/infer",
        one({ datatype: "INT64", data: [2 ** 60, 0, 0, 0, 0, 0] }),
        400,
        "tensor_invalid",
      ],
      [
        "a raw length beyond the body",
        "POST",
        infer,
        one({ parameters: { binary_data_size: 24 } }),
        400,
        "invalid_body",
      ],
      [
        "a raw length that is no number",
        "POST",
        infer,
        one({ parameters: { binary_data_size: "24" } }),
        400,
        "invalid_body",
      ],
      [
        "a header length beyond the body",
        "POST",
        infer,
        one({}),
        400,
        "invalid_body",
        { [HEADER_LENGTH]: "1000000" },
      ],
      [
        "a header length that is no number",
        "POST",
        infer,
        one({}),
        400,
        "invalid_body",
        { [HEADER_LENGTH]: "-1" },
      ],
      [
        "a compressed body",
        "POST",
        infer,
        one({}),
        415,
        "unsupported_media_type",
        { "content-encoding": "gzip" },
      ],
      [
        "bytes after the last tensor",
        "POST",
        infer,
        Buffer.concat([text('{"inputs":[]}'), Buffer.alloc(3)]),
        400,
        "invalid_body",
        { [HEADER_LENGTH]: "13" },
      ],
      ["an unknown model to load", "POST", "/v2/repository/models/nothing/load", undefined, 404, "not_found"],
      ["an index request that is no JSON", "POST", "/v2/repository/index", text("?"), 400, "invalid_body"],
    ];
  it.each(REFUSED)("refuses %s", async (_, method, path, body, status, code, headers) => {
    const response = await ask(method, path, body, headers);
    expect(response.json).toMatchObject({ code, error: expect.any(String) });
    expect(response.status).toBe(status);
  });

  it("refuses to write what JSON can't carry, and says what to ask for", async () => {
    const { json, status } = await ask("POST", "/v2/models/several/infer", {
      inputs: [
        { ...several.inputs[0], data: [3e38, 3e38, 1, 1] },
        { ...several.inputs[1], data: [3e38, 3e38, 1, 1] },
        several.inputs[2],
      ],
    });
    expect(status).toBe(400);
    expect(json["error"]).toMatch(/ask for binary data/);
  });
});

describe("tensors on the wire", () => {
  it.each([...contractModels().values()].filter(({ name }) => name.startsWith("identity-")))(
    "raw $name there and back",
    ({ feeds }) => {
      const tensor = feeds["x"]!;
      expect(tensorFromRaw(tensor.type, tensor.dims, tensorToRaw(tensor))).toEqual(tensor);
    },
  );
  it("JSON there and back", () => {
    const cases: Tensor[] = [
      { type: "float32", dims: [3], data: Float32Array.of(0.1, -2.5, 1e-40) },
      { type: "int64", dims: [2], data: BigInt64Array.of(-5n, 2n ** 53n - 1n) },
      { type: "bool", dims: [2], data: Uint8Array.of(1, 0) },
      { type: "string", dims: [2], data: ["a", "😀"] },
    ];
    for (const tensor of cases) {
      const json: unknown = JSON.parse(JSON.stringify(tensorToJsonData(tensor)));
      expect(tensorFromJsonData(tensor.type, tensor.dims, json)).toEqual(tensor);
    }
  });
  it.each<[string, ElementType, number[], Uint8Array]>([
    ["a short number", "float32", [2], new Uint8Array(7)],
    ["a text longer than the bytes", "string", [1], Uint8Array.of(255, 255, 255, 255, 1)],
    ["a text without a length", "string", [1], Uint8Array.of(1)],
    ["bytes after the last text", "string", [1], Uint8Array.of(0, 0, 0, 0, 9)],
    ["a text that is no UTF-8", "string", [1], Uint8Array.of(1, 0, 0, 0, 0xff)],
  ])("refuses %s", (_, type, dims, bytes) => {
    expect(() => tensorFromRaw(type, dims, bytes)).toThrow(
      expect.objectContaining({ code: "tensor_invalid" }),
    );
  });
});

describe("what is small on the wire and large in memory", () => {
  it("is refused before it is read: JSON without a header length", () => {
    const body = new Uint8Array(OIP_LIMITS.jsonBytesMax + 1);
    expect(() => splitBody(body, undefined)).toThrow(expect.objectContaining({ code: "limit_exceeded" }));
  });
  it("is refused before it is read: texts without letters", () => {
    const count = OIP_LIMITS.jsonElementsMax + 1;
    expect(() => tensorFromRaw("string", [count], new Uint8Array(4 * count))).toThrow(
      expect.objectContaining({ code: "limit_exceeded" }),
    );
  });
  it("is not written either: more elements in JSON than are read", () => {
    const data = new Uint8Array(OIP_LIMITS.jsonElementsMax + 1);
    expect(() => writeTensor("y", { type: "uint8", dims: [data.length], data }, "only-json")).toThrow(
      expect.objectContaining({ code: "limit_exceeded" }),
    );
  });
});

describe("names of served models", () => {
  it("are read", () => {
    expect(parseOipProvider("oip+http://127.0.0.1:8000/v2/models/parts")).toEqual({
      transport: "http",
      authority: "127.0.0.1:8000",
      basePath: "",
      model: "parts",
      version: undefined,
    });
    expect(parseOipProvider("oip+https://h/base/path/v2/models/a%2Fb/versions/3")).toMatchObject({
      basePath: "/base/path",
      model: "a/b",
      version: "3",
    });
    expect(parseOipProvider("oip+grpc://[::1]:8001/v2/models/m")).toMatchObject({ authority: "[::1]:8001" });
    expect(parseOipProvider("oip+unix:/run/x.sock:/v2/models/m")).toMatchObject({
      transport: "unix",
      authority: "/run/x.sock",
      model: "m",
    });
    expect(isOipProvider("cpu")).toBe(false);
  });
  it.each([
    "oip+http://host:1",
    "oip+ftp://host/v2/models/m",
    "oip+http://host/v2/models/",
    "oip+http://host/v2/models/m?x",
    "oip+http:///v2/models/m",
    "oip+http://host/v2/models/%zz",
    "oip+unix:relative:/v2/models/m",
    `oip+http://host/v2/models/${"m".repeat(2000)}`,
  ])("%s is refused", (name) => {
    expect(() => parseOipProvider(name)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });
});
