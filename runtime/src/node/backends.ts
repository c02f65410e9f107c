import { FieldloopError } from "@fieldloop/protocol";
import type { Backend } from "../backend.js";
import { ortNode } from "./ort.js";

/**
 * The backend that runs an execution provider.
 * @throws FieldloopError `provider_unavailable` where no backend here knows it
 */
export function backendFor(executionProvider: string): Promise<Backend> {
  if (ortNode.executionProviders().includes(executionProvider)) return Promise.resolve(ortNode);
  const known = ortNode.executionProviders().join(", ");
  return Promise.reject(
    new FieldloopError(
      "provider_unavailable",
      `Open execution provider "${executionProvider}": there are ${known}`,
    ),
  );
}
