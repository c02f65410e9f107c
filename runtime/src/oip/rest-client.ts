import { FieldloopError } from "@fieldloop/protocol";
import type { z } from "zod";
import type { OipClient, OipRemoteModel } from "./client.js";
import { codeOfServer } from "./errors.js";
import {
  HEADER_LENGTH,
  errorSchema,
  inferResponseSchema,
  modelMetadataSchema,
  parseJsonBody,
  serverMetadataSchema,
  splitBody,
} from "./rest-messages.js";
import { readTensors, writeTensor } from "./rest-tensors.js";
import type { OipInferRequest, OipInferResponse } from "./service.js";

/** Sends one HTTP request; throws `unavailable`, `timed_out` or `limit_exceeded`. */
export interface OipHttpTransport {
  send(request: {
    readonly method: "GET" | "POST";
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: readonly Uint8Array[];
  }): Promise<{
    readonly status: number;
    /** Names in lower case. */
    readonly headers: Readonly<Record<string, string | undefined>>;
    readonly body: Uint8Array;
  }>;
  close(): Promise<void>;
}

/** Extensions by which servers say that they take and give raw tensors. */
const BINARY_EXTENSIONS = ["binary_tensor_data", "binary_data"];
const ERROR_LENGTH_MAX = 1_000;

/** The REST form of the protocol, as a client: raw tensors where the server takes them, JSON otherwise. */
export class OipRestClient implements OipClient {
  readonly #transport: OipHttpTransport;
  readonly #basePath: string;
  #binary: Promise<boolean> | undefined;

  /** @param basePath path before `/v2`, without a slash at its end */
  constructor(transport: OipHttpTransport, basePath = "") {
    this.#transport = transport;
    this.#basePath = basePath;
  }

  serverMetadata(): Promise<z.output<typeof serverMetadataSchema>> {
    return this.#get("/v2", serverMetadataSchema, "server metadata");
  }

  async modelReady(model: string, version: string | undefined): Promise<boolean> {
    const { status } = await this.#send("GET", `${pathOf(model, version)}/ready`);
    return status === 200;
  }

  modelMetadata(model: string, version: string | undefined): Promise<OipRemoteModel> {
    return this.#get(pathOf(model, version), modelMetadataSchema, `metadata of "${model}"`);
  }

  async infer(request: OipInferRequest): Promise<OipInferResponse> {
    this.#binary ??= this.#takesRaw();
    const binary = await this.#binary.catch((error: unknown) => {
      this.#binary = undefined;
      throw error;
    });
    const written = [...request.inputs].map(([name, tensor]) =>
      writeTensor(name, tensor, binary ? "raw" : "only-json"),
    );
    const wanted = binary ? { parameters: { binary_data: true } } : {};
    const head = encode({
      ...(request.id === undefined ? {} : { id: request.id }),
      inputs: written.map((tensor) => tensor.json),
      ...(request.outputs === undefined
        ? binary
          ? { parameters: { ...request.parameters, binary_data_output: true } }
          : parametersOf(request)
        : { ...parametersOf(request), outputs: request.outputs.map((name) => ({ name, ...wanted })) }),
    });
    const reply = await this.#send(
      "POST",
      `${pathOf(request.model, request.version)}/infer`,
      binary
        ? { "content-type": "application/octet-stream", [HEADER_LENGTH]: String(head.length) }
        : { "content-type": "application/json" },
      [head, ...written.flatMap((tensor) => tensor.raw ?? [])],
    );
    const { json, raw } = splitBody(requireOk(reply, "Run model"), reply.headers[HEADER_LENGTH]);
    const answer = parseJsonBody(inferResponseSchema, json, "inference answer");
    return {
      model: answer.model_name,
      version: answer.model_version ?? "",
      outputs: readTensors(answer.outputs, raw),
    };
  }

  close(): Promise<void> {
    return this.#transport.close();
  }

  async #takesRaw(): Promise<boolean> {
    const { extensions } = await this.serverMetadata();
    return extensions.some((name) => BINARY_EXTENSIONS.includes(name));
  }

  async #get<Schema extends z.ZodType>(
    path: string,
    schema: Schema,
    what: string,
  ): Promise<z.output<Schema>> {
    return parseJsonBody(schema, requireOk(await this.#send("GET", path), `Read ${what}`), what);
  }

  #send(
    method: "GET" | "POST",
    path: string,
    headers: Record<string, string> = {},
    body: readonly Uint8Array[] = [],
  ): ReturnType<OipHttpTransport["send"]> {
    return this.#transport.send({ method, path: `${this.#basePath}${path}`, headers, body });
  }
}

function parametersOf({ parameters }: OipInferRequest): { parameters?: OipInferRequest["parameters"] } {
  return Object.keys(parameters).length === 0 ? {} : { parameters };
}

function pathOf(model: string, version: string | undefined): string {
  const path = `/v2/models/${encodeURIComponent(model)}`;
  return version === undefined ? path : `${path}/versions/${encodeURIComponent(version)}`;
}

function requireOk(reply: { status: number; body: Uint8Array }, action: string): Uint8Array {
  if (reply.status === 200) return reply.body;
  const text = new TextDecoder().decode(reply.body.subarray(0, 16 * ERROR_LENGTH_MAX));
  const said = errorSchema.safeParse(parseLoosely(text));
  const message = (said.success ? said.data.error : text).slice(0, ERROR_LENGTH_MAX);
  throw new FieldloopError(
    codeOfServer(reply.status, said.success ? said.data.code : undefined),
    `${action}: the inference server answered ${reply.status}: ${message}`,
  );
}

function parseLoosely(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A proxy's page, say: its text is the message.
    return undefined;
  }
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
