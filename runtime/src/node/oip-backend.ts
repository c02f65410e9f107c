import type { Backend } from "../backend.js";
import { OIP_LIMITS } from "../oip/limits.js";
import { parseOipProvider } from "../oip/provider-name.js";
import { OipRestClient } from "../oip/rest-client.js";
import type { OipClient } from "../oip/client.js";
import { OipSession } from "../oip/session.js";
import { httpTransport } from "./oip-http-transport.js";

/**
 * A model on a server of the Open Inference Protocol v2 as a backend: Triton, OpenVINO Model Server, KServe, or
 * `fieldloop model serve`. The file that is opened is not sent: the server has its own, and golden cases tell whether
 * it is the same model.
 * @param executionProvider see {@link parseOipProvider}
 * @throws FieldloopError `invalid_argument`
 */
export function oipBackend(executionProvider: string): Backend {
  const endpoint = parseOipProvider(executionProvider);
  return {
    name: "open-inference-protocol",
    version: "2",
    executionProviders: () => [executionProvider],
    openSession: async (_model, options) =>
      OipSession.open(
        await oipClient(executionProvider, options.requestTimeoutMs),
        endpoint.model,
        endpoint.version,
      ),
  };
}

/**
 * A client for the server that a provider name tells. The library of gRPC is loaded only for `grpc` and `grpcs`.
 * @throws FieldloopError `invalid_argument`
 */
export async function oipClient(
  executionProvider: string,
  timeoutMs: number = OIP_LIMITS.requestTimeoutMs,
): Promise<OipClient> {
  const endpoint = parseOipProvider(executionProvider);
  if (endpoint.transport === "grpc" || endpoint.transport === "grpcs") {
    const { OipGrpcClient } = await import("./oip-grpc-client.js");
    return new OipGrpcClient(endpoint, timeoutMs);
  }
  return new OipRestClient(httpTransport(endpoint, timeoutMs), endpoint.basePath);
}
