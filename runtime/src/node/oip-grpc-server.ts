import { create, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import {
  Metadata,
  Server,
  ServerCredentials,
  status as GRPC,
  type ServiceDefinition,
  type StatusObject,
  type UntypedServiceImplementation,
  type handleUnaryCall,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import {
  ModelInferRequestSchema,
  ModelInferResponseSchema,
  ModelMetadataRequestSchema,
  ModelMetadataResponseSchema,
  ModelReadyRequestSchema,
  ModelReadyResponseSchema,
  RepositoryIndexRequestSchema,
  RepositoryIndexResponseSchema,
  RepositoryModelLoadRequestSchema,
  RepositoryModelLoadResponseSchema,
  RepositoryModelUnloadRequestSchema,
  RepositoryModelUnloadResponseSchema,
  ServerLiveRequestSchema,
  ServerLiveResponseSchema,
  ServerMetadataRequestSchema,
  ServerMetadataResponseSchema,
  ServerReadyRequestSchema,
  ServerReadyResponseSchema,
} from "../oip/generated/open_inference_pb.js";
import { decodeMessage, fromGrpcRequest, toGrpcResponse } from "../oip/grpc-messages.js";
import { OIP_LIMITS } from "../oip/limits.js";
import type { InferenceService, OipModelMetadata } from "../oip/service.js";
import { CODE_TRAILER, GRPC_SERVICE, bufferOf } from "./oip-grpc-client.js";
import type { GrpcServerOptions } from "./oip-grpc.js";
import { urlOf, type OipServer } from "./oip-http-server.js";

const STOP_GRACE_MS = 5_000;

/** One call: its messages, and what answers it. */
interface Method<Request extends DescMessage, Response extends DescMessage> {
  readonly request: Request;
  readonly response: Response;
  readonly answer: (message: MessageShape<Request>, signal: AbortSignal) => Promise<MessageShape<Response>>;
}

/** See `serveGrpc`. @throws FieldloopError `unavailable` */
export async function listenGrpc(
  service: InferenceService,
  address: { readonly host: string; readonly port: number },
  { messageBytesMax = OIP_LIMITS.bodyBytesMax }: GrpcServerOptions = {},
): Promise<OipServer> {
  const server = new Server({
    "grpc.max_receive_message_length": messageBytesMax,
    "grpc.max_send_message_length": messageBytesMax,
  });
  const { definition, implementation } = methodsOf(service);
  server.addService(definition, implementation);
  const { host } = address;
  const port = await new Promise<number>((resolve, reject) => {
    const target = `${host.includes(":") ? `[${host}]` : host}:${address.port}`;
    server.bindAsync(target, ServerCredentials.createInsecure(), (cause, bound) => {
      if (cause === null) resolve(bound);
      else
        reject(new FieldloopError("unavailable", `Listen for inference calls: ${cause.message}`, { cause }));
    });
  });
  return { url: urlOf("grpc", host, { port }), stop: () => stop(server) };
}

async function stop(server: Server): Promise<void> {
  const force = setTimeout(() => server.forceShutdown(), STOP_GRACE_MS);
  await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  clearTimeout(force);
}

function methodsOf(service: InferenceService): {
  definition: ServiceDefinition;
  implementation: UntypedServiceImplementation;
} {
  const definition: Record<string, ServiceDefinition[string]> = {};
  const implementation: UntypedServiceImplementation = {};
  const add = <Request extends DescMessage, Response extends DescMessage>(
    name: string,
    method: Method<Request, Response>,
  ): void => {
    definition[name] = {
      path: `/${GRPC_SERVICE}/${name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (message: MessageShape<Request>) => bufferOf(toBinary(method.request, message)),
      requestDeserialize: (bytes: Buffer) => decodeMessage(method.request, bytes),
      responseSerialize: (message: MessageShape<Response>) => bufferOf(toBinary(method.response, message)),
      responseDeserialize: (bytes: Buffer) => decodeMessage(method.response, bytes),
    };
    implementation[name] = handlerOf(method);
  };
  const versionOf = (version: string): string | undefined => (version === "" ? undefined : version);
  add("ServerLive", {
    request: ServerLiveRequestSchema,
    response: ServerLiveResponseSchema,
    answer: async () => create(ServerLiveResponseSchema, { live: true }),
  });
  add("ServerReady", {
    request: ServerReadyRequestSchema,
    response: ServerReadyResponseSchema,
    answer: async () => create(ServerReadyResponseSchema, { ready: await service.ready() }),
  });
  add("ModelReady", {
    request: ModelReadyRequestSchema,
    response: ModelReadyResponseSchema,
    answer: async ({ name, version }) =>
      create(ModelReadyResponseSchema, { ready: await service.modelReady(name, versionOf(version)) }),
  });
  add("ServerMetadata", {
    request: ServerMetadataRequestSchema,
    response: ServerMetadataResponseSchema,
    answer: async () => {
      const { name, version, extensions } = service.serverMetadata();
      return create(ServerMetadataResponseSchema, { name, version, extensions: [...extensions] });
    },
  });
  add("ModelMetadata", {
    request: ModelMetadataRequestSchema,
    response: ModelMetadataResponseSchema,
    answer: async ({ name, version }) =>
      metadataMessage(await service.modelMetadata(name, versionOf(version))),
  });
  add("ModelInfer", {
    request: ModelInferRequestSchema,
    response: ModelInferResponseSchema,
    answer: async (message, signal) =>
      toGrpcResponse(await service.infer(fromGrpcRequest(message), signal), message.id),
  });
  add("RepositoryIndex", {
    request: RepositoryIndexRequestSchema,
    response: RepositoryIndexResponseSchema,
    answer: async ({ ready }) => {
      const models = (await service.models()).filter((model) => !ready || model.state === "READY");
      return create(RepositoryIndexResponseSchema, { models: models.map((model) => ({ ...model })) });
    },
  });
  add("RepositoryModelLoad", {
    request: RepositoryModelLoadRequestSchema,
    response: RepositoryModelLoadResponseSchema,
    answer: async ({ modelName }) => {
      await service.load(modelName);
      return create(RepositoryModelLoadResponseSchema);
    },
  });
  add("RepositoryModelUnload", {
    request: RepositoryModelUnloadRequestSchema,
    response: RepositoryModelUnloadResponseSchema,
    answer: async ({ modelName }) => {
      await service.unload(modelName);
      return create(RepositoryModelUnloadResponseSchema);
    },
  });
  return { definition, implementation };
}

function metadataMessage(metadata: OipModelMetadata): MessageShape<typeof ModelMetadataResponseSchema> {
  const tensors = (list: OipModelMetadata["inputs"]): { name: string; datatype: string; shape: bigint[] }[] =>
    list.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) }));
  return create(ModelMetadataResponseSchema, {
    name: metadata.name,
    versions: [...metadata.versions],
    platform: metadata.platform,
    inputs: tensors(metadata.inputs),
    outputs: tensors(metadata.outputs),
  });
}

function handlerOf<Request extends DescMessage, Response extends DescMessage>(
  method: Method<Request, Response>,
): handleUnaryCall<MessageShape<Request>, MessageShape<Response>> {
  return (call, callback) => {
    const gone = new AbortController();
    call.on("cancelled", () => gone.abort());
    void respond(method.answer(call.request, gone.signal), callback);
  };
}

async function respond<Answer>(work: Promise<Answer>, callback: sendUnaryData<Answer>): Promise<void> {
  callback(...(await settle(work)));
}

/** Either an error as gRPC says it, or the answer. */
async function settle<Answer>(work: Promise<Answer>): Promise<[Partial<StatusObject> | null, Answer | null]> {
  try {
    return [null, await work];
  } catch (error) {
    const coded = toFieldloopError(error);
    const metadata = new Metadata();
    metadata.set(CODE_TRAILER, coded.code);
    const details = coded.code === "internal" ? "internal error" : coded.message;
    return [{ code: grpcStatus(coded.status), details, metadata }, null];
  }
}

function grpcStatus(status: number): GRPC {
  switch (status) {
    case 400:
    case 415:
      return GRPC.INVALID_ARGUMENT;
    case 401:
      return GRPC.UNAUTHENTICATED;
    case 403:
      return GRPC.PERMISSION_DENIED;
    case 404:
      return GRPC.NOT_FOUND;
    case 409:
    case 412:
      return GRPC.FAILED_PRECONDITION;
    case 413:
    case 429:
      return GRPC.RESOURCE_EXHAUSTED;
    case 503:
      return GRPC.UNAVAILABLE;
    case 504:
      return GRPC.DEADLINE_EXCEEDED;
    default:
      return GRPC.INTERNAL;
  }
}
