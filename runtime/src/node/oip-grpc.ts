import type { InferenceService } from "../oip/service.js";
import type { OipServer } from "./oip-http-server.js";

export interface GrpcServerOptions {
  /** Of a request or an answer. Default `OIP_LIMITS.bodyBytesMax`. */
  readonly messageBytesMax?: number;
}

/**
 * Serves the gRPC form of the protocol, without TLS: for loopback, or behind something that adds it. The library of gRPC is
 * loaded by the first call: a device that serves or asks nobody over gRPC pays no memory for it.
 * @throws FieldloopError `unavailable` where the address is taken or not allowed
 */
export async function serveGrpc(
  service: InferenceService,
  address: { readonly host: string; readonly port: number },
  options: GrpcServerOptions = {},
): Promise<OipServer> {
  const { listenGrpc } = await import("./oip-grpc-server.js");
  return listenGrpc(service, address, options);
}
