import { FieldloopError } from "@fieldloop/protocol";
import type { Backend } from "../backend.js";
import { isOipProvider } from "../oip/provider-name.js";
import { ortNode } from "./ort.js";

/** ONNX Runtime compiled to WebAssembly: the last resort where no native library runs. */
export const WASM_PROVIDER = "wasm";

/**
 * The backend that runs an execution provider: one of ONNX Runtime's own (`cpu`, `webgpu`, `cuda`, …), `wasm`, or a model on a
 * server of the Open Inference Protocol (`oip+http://…`, see {@link parseOipProvider}).
 * @throws FieldloopError `provider_unavailable` where no backend here knows it; `invalid_argument` for a malformed server name
 */
export async function backendFor(executionProvider: string): Promise<Backend> {
  if (ortNode.executionProviders().includes(executionProvider)) return ortNode;
  if (executionProvider === WASM_PROVIDER) return (await import("./ort-web.js")).ortWebNode;
  if (isOipProvider(executionProvider)) {
    return (await import("./oip-backend.js")).oipBackend(executionProvider);
  }
  const known = [...ortNode.executionProviders(), WASM_PROVIDER, "oip+http://HOST:PORT/v2/models/NAME"];
  throw new FieldloopError(
    "provider_unavailable",
    `Open execution provider "${executionProvider}": there are ${known.join(", ")}`,
  );
}

/** Everything that could run a model here, in the order in which equals are preferred; what works shows a probe. */
export function candidateProviders(endpoints: readonly string[]): string[] {
  const own = ortNode.executionProviders();
  const order = ["tensorrt", "cuda", "coreml", "dml", "webgpu", "cpu"];
  const sorted = [...own].sort((a, b) => order.indexOf(a) - order.indexOf(b));
  return [...new Set([...endpoints, ...sorted, WASM_PROVIDER])];
}
