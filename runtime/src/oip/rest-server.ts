import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { OIP_LIMITS } from "./limits.js";
import { HEADER_LENGTH, inferRequestSchema, parseJsonBody, splitBody } from "./rest-messages.js";
import { readTensors, writeTensor } from "./rest-tensors.js";
import type { InferenceService, OipEncodedInput, OipInferRequest } from "./service.js";

/** One HTTP request, read whole by whatever server stands in front. */
export interface OipHttpRequest {
  readonly method: string;
  /** As it came: percent-encoded, a query is ignored. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Uint8Array;
  readonly signal?: AbortSignal;
}

/** Pieces of the body one after the other; tensors are views of the model's own results, not copies. */
export interface OipHttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: readonly Uint8Array[];
}

const JSON_TYPE = "application/json";
const MODEL_PATH = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/(ready|infer))?$/;
const REPOSITORY_PATH = /^\/v2\/repository\/models\/([^/]+)\/(load|unload)$/;

/**
 * The REST form of the Open Inference Protocol v2 (KServe) over a service, with the binary tensor data and model repository
 * extensions of Triton. Every byte of the request is hostile until parsed; sizes are held to {@link OIP_LIMITS}. Never
 * throws: an error is answered as `{"error": message, "code": code}` with the status of its code.
 */
export async function handleInference(
  service: InferenceService,
  request: OipHttpRequest,
): Promise<OipHttpResponse> {
  try {
    if (request.body.length > OIP_LIMITS.bodyBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Read request: ${request.body.length} bytes, at most ${OIP_LIMITS.bodyBytesMax}`,
      );
    }
    return await route(service, request);
  } catch (error) {
    return oipErrorResponse(error);
  }
}

/** The answer that the protocol gives to an error. */
export function oipErrorResponse(error: unknown, status?: number): OipHttpResponse {
  const coded = toFieldloopError(error);
  // What carries no code of ours may say anything, so a client learns only that it happened.
  const message = coded.code === "internal" ? "internal error" : coded.message;
  return json({ error: message, code: coded.code }, status ?? coded.status);
}

async function route(service: InferenceService, request: OipHttpRequest): Promise<OipHttpResponse> {
  const path = request.path.split("?", 1)[0]!.replace(/(?<=.)\/$/, "");
  switch (path) {
    case "/v2":
      return only("GET", request) ?? json(service.serverMetadata());
    case "/v2/health/live":
      return only("GET", request) ?? json({ live: true });
    case "/v2/health/ready": {
      const refused = only("GET", request);
      if (refused !== undefined) return refused;
      const ready = await service.ready();
      return json({ ready }, ready ? 200 : 503);
    }
    case "/v2/repository/index":
      return only("POST", request) ?? (await index(service, request));
  }
  const repository = REPOSITORY_PATH.exec(path);
  if (repository !== null) {
    const refused = only("POST", request);
    if (refused !== undefined) return refused;
    const name = decode(repository[1]!);
    await (repository[2] === "load" ? service.load(name) : service.unload(name));
    return json({});
  }
  const model = MODEL_PATH.exec(path);
  if (model === null)
    throw new FieldloopError("not_found", `Answer request: no path "${path.slice(0, 200)}"`);
  const name = decode(model[1]!);
  const version = model[2] === undefined ? undefined : decode(model[2]);
  if (model[3] === "infer") return only("POST", request) ?? (await infer(service, request, name, version));
  const refused = only("GET", request);
  if (refused !== undefined) return refused;
  if (model[3] === undefined) return json(await service.modelMetadata(name, version));
  const ready = await service.modelReady(name, version);
  return json({ name, ready }, ready ? 200 : 503);
}

async function index(service: InferenceService, request: OipHttpRequest): Promise<OipHttpResponse> {
  const models = await service.models();
  const onlyReady = request.body.length > 0 && wantsReady(request.body);
  return json(models.filter((model) => !onlyReady || model.state === "READY"));
}

/** The body of an index request may be empty, `{}` or `{"ready": true}`. */
function wantsReady(body: Uint8Array): boolean {
  try {
    if (body.length > OIP_LIMITS.headerBytesMax) throw new Error("too long");
    const value: unknown = JSON.parse(new TextDecoder().decode(body));
    return typeof value === "object" && value !== null && "ready" in value && value.ready === true;
  } catch (cause) {
    throw new FieldloopError("invalid_body", "Read repository index request: it is no JSON", { cause });
  }
}

async function infer(
  service: InferenceService,
  request: OipHttpRequest,
  model: string,
  version: string | undefined,
): Promise<OipHttpResponse> {
  const encoding = request.headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") {
    throw new FieldloopError(
      "unsupported_media_type",
      `Read request: content encoding "${encoding.slice(0, 32)}"`,
    );
  }
  const { json: head, raw } = splitBody(request.body, request.headers[HEADER_LENGTH]);
  const body = parseJsonBody(inferRequestSchema, head, "inference request");
  const encoded = new Map<string, OipEncodedInput>();
  const inputs = readTensors(body.inputs, raw, encoded);
  const asked: OipInferRequest = {
    model,
    version,
    id: body.id,
    parameters: scalarsOf(body.parameters),
    inputs,
    ...(encoded.size === 0 ? {} : { encoded }),
    outputs:
      body.outputs === undefined || body.outputs.length === 0
        ? undefined
        : body.outputs.map(({ name }) => name),
  };
  const result = await service.infer(asked, request.signal);
  const all = body.parameters?.["binary_data_output"] === true;
  const each = new Map(body.outputs?.map(({ name, parameters }) => [name, parameters?.["binary_data"]]));
  const written = [...result.outputs].map(([name, tensor]) =>
    writeTensor(name, tensor, (each.get(name) ?? all) === true ? "raw" : "only-json"),
  );
  const answer = {
    model_name: result.model,
    model_version: result.version,
    ...(body.id === undefined ? {} : { id: body.id }),
    ...(result.parameters === undefined ? {} : { parameters: result.parameters }),
    outputs: written.map((tensor) => tensor.json),
  };
  const raws = written.flatMap((tensor) => tensor.raw ?? []);
  if (raws.length === 0) return json(answer);
  const text = encode(answer);
  return {
    status: 200,
    headers: { "content-type": "application/octet-stream", [HEADER_LENGTH]: String(text.length) },
    body: [text, ...raws],
  };
}

/** Parameters of a request that are scalars; the protocol knows no others. */
function scalarsOf(
  parameters: Record<string, unknown> | undefined,
): Record<string, string | number | boolean> {
  const scalars: Record<string, string | number | boolean> = {};
  for (const [name, value] of Object.entries(parameters ?? {})) {
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
      scalars[name] = value;
  }
  return scalars;
}

/** The answer to another method than the one wanted. */
function only(method: "GET" | "POST", request: OipHttpRequest): OipHttpResponse | undefined {
  if (request.method === method || (method === "GET" && request.method === "HEAD")) return undefined;
  const error = new FieldloopError(
    "invalid_argument",
    `Answer request: ${request.method.slice(0, 16)}, wanted ${method}`,
  );
  const refused = oipErrorResponse(error, 405);
  return { ...refused, headers: { ...refused.headers, allow: method } };
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new FieldloopError(
      "invalid_argument",
      `Answer request: "${segment.slice(0, 100)}" is not percent-encoded`,
      {
        cause,
      },
    );
  }
}

function json(value: unknown, status = 200): OipHttpResponse {
  return { status, headers: { "content-type": JSON_TYPE }, body: [encode(value)] };
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
