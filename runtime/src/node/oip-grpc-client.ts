import { create, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import {
  Client,
  Metadata,
  credentials,
  logVerbosity,
  setLogVerbosity,
  status as GRPC,
  type ServiceError,
} from "@grpc/grpc-js";
import { FieldloopError } from "@fieldloop/protocol";
import type { OipClient, OipRemoteModel } from "../oip/client.js";
import { codeOfServer } from "../oip/errors.js";
import {
  ModelInferRequestSchema,
  ModelInferResponseSchema,
  ModelMetadataRequestSchema,
  ModelMetadataResponseSchema,
  ModelReadyRequestSchema,
  ModelReadyResponseSchema,
  ServerMetadataRequestSchema,
  ServerMetadataResponseSchema,
} from "../oip/generated/open_inference_pb.js";
import { decodeMessage, fromGrpcResponse, toGrpcRequest } from "../oip/grpc-messages.js";
import { OIP_LIMITS } from "../oip/limits.js";
import type { OipEndpoint } from "../oip/provider-name.js";
import type { OipInferRequest, OipInferResponse } from "../oip/service.js";

// What goes wrong comes as an error; the library would also write it to the terminal.
setLogVerbosity(logVerbosity.NONE);

export const GRPC_SERVICE = "inference.GRPCInferenceService";
/** Trailer by which a server of this project says its own error code. */
export const CODE_TRAILER = "fieldloop-code";

/** HTTP statuses that stand for gRPC's, as google.rpc.Code pairs them. */
const HTTP_STATUS: Readonly<Partial<Record<GRPC, number>>> = {
  [GRPC.INVALID_ARGUMENT]: 400,
  [GRPC.OUT_OF_RANGE]: 400,
  [GRPC.UNAUTHENTICATED]: 401,
  [GRPC.PERMISSION_DENIED]: 403,
  [GRPC.NOT_FOUND]: 404,
  [GRPC.RESOURCE_EXHAUSTED]: 413,
  [GRPC.UNAVAILABLE]: 503,
  [GRPC.DEADLINE_EXCEEDED]: 504,
};

/** The gRPC form of the protocol, as a client. A lost connection is opened anew by the next request. */
export class OipGrpcClient implements OipClient {
  readonly #client: Client;
  readonly #timeoutMs: number;

  constructor(endpoint: OipEndpoint, timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.#client = new Client(
      endpoint.authority,
      endpoint.transport === "grpcs" ? credentials.createSsl() : credentials.createInsecure(),
      {
        "grpc.max_receive_message_length": OIP_LIMITS.bodyBytesMax,
        "grpc.max_send_message_length": OIP_LIMITS.bodyBytesMax,
        // Sessions to one server shall not stand in each other's way, nor outlive each other.
        "grpc.use_local_subchannel_pool": 1,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2_000,
        "grpc.enable_http_proxy": 0,
        // Answers are tensors: with the default of 64 KiB each waits for many small permissions to go on.
        "grpc-node.flow_control_window": 4 * 1024 * 1024,
      },
    );
  }

  async serverMetadata(): Promise<{ name: string; version: string; extensions: readonly string[] }> {
    const request = create(ServerMetadataRequestSchema);
    return await this.#call(
      "ServerMetadata",
      ServerMetadataRequestSchema,
      request,
      ServerMetadataResponseSchema,
    );
  }

  async modelReady(name: string, version: string | undefined): Promise<boolean> {
    const request = create(ModelReadyRequestSchema, { name, version: version ?? "" });
    try {
      const { ready } = await this.#call(
        "ModelReady",
        ModelReadyRequestSchema,
        request,
        ModelReadyResponseSchema,
      );
      return ready;
    } catch (error) {
      // Some servers answer no, others that they know no such model.
      if (error instanceof FieldloopError && error.code === "not_found") return false;
      throw error;
    }
  }

  async modelMetadata(name: string, version: string | undefined): Promise<OipRemoteModel> {
    const request = create(ModelMetadataRequestSchema, { name, version: version ?? "" });
    const answer = await this.#call(
      "ModelMetadata",
      ModelMetadataRequestSchema,
      request,
      ModelMetadataResponseSchema,
    );
    const tensors = (list: typeof answer.inputs): OipRemoteModel["inputs"] =>
      list
        .slice(0, OIP_LIMITS.tensorsMax)
        .map((tensor) => ({ name: tensor.name, datatype: tensor.datatype, shape: tensor.shape.map(Number) }));
    return {
      name: answer.name,
      versions: answer.versions,
      platform: answer.platform,
      inputs: tensors(answer.inputs),
      outputs: tensors(answer.outputs),
    };
  }

  async infer(request: OipInferRequest): Promise<OipInferResponse> {
    return fromGrpcResponse(
      await this.#call(
        "ModelInfer",
        ModelInferRequestSchema,
        toGrpcRequest(request),
        ModelInferResponseSchema,
      ),
    );
  }

  async close(): Promise<void> {
    this.#client.close();
  }

  #call<Request extends DescMessage, Response extends DescMessage>(
    method: string,
    requestSchema: Request,
    request: MessageShape<Request>,
    responseSchema: Response,
  ): Promise<MessageShape<Response>> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        `/${GRPC_SERVICE}/${method}`,
        (message: MessageShape<Request>) => bufferOf(toBinary(requestSchema, message)),
        (bytes: Buffer) => decodeMessage(responseSchema, bytes),
        request,
        new Metadata(),
        { deadline: Date.now() + this.#timeoutMs },
        (error: ServiceError | null, answer?: MessageShape<Response>) => {
          if (error === null && answer !== undefined) resolve(answer);
          else reject(toCoded(error, method));
        },
      );
    });
  }
}

/** The same memory, as gRPC wants it. */
export function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

function toCoded(error: ServiceError | null, method: string): FieldloopError {
  const said = error?.metadata?.get(CODE_TRAILER)[0];
  const code = codeOfServer(
    HTTP_STATUS[error?.code ?? GRPC.UNKNOWN] ?? 500,
    typeof said === "string" ? said : undefined,
  );
  return new FieldloopError(
    code,
    `Ask inference server (${method}): ${error?.details ?? "no answer"}`.slice(0, 1_000),
    { cause: error },
  );
}
