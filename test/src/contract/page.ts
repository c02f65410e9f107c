import { tensorFromBytes, type ElementType, type Tensor } from "@fieldloop/runtime";
import { runContract, type ContractResult, type ContractSubject } from "@fieldloop/runtime/contract";
import { ortWeb } from "@fieldloop/runtime/web";
import { whileWarm } from "./warm.js";

/** Entry of the page in which the suite runs: what the test calls, and what it gave the page. */

/** One output of one network on the CPU: elements as base64. */
export interface WrittenTensor {
  readonly type: ElementType;
  readonly dims: readonly number[];
  readonly base64: string;
}
export type WrittenReferences = Readonly<Record<string, Readonly<Record<string, WrittenTensor>>>>;

export interface ContractPage {
  runOn(executionProvider: string, threadCount: number): Promise<readonly ContractResult[]>;
}

async function runOn(executionProvider: string, threadCount: number): Promise<readonly ContractResult[]> {
  const backend = ortWeb({ wasmBaseUrl: "/ort/", threadCount });
  const references = (await (await fetch("/references.json")).json()) as WrittenReferences;
  const open = (bytes: Uint8Array): ReturnType<typeof backend.openSession> =>
    backend.openSession(bytes, { threadCount, executionProvider });
  const subject: ContractSubject = {
    open: (model) => open(model.bytes),
    openBroken: () => open(new TextEncoder().encode("no model")),
    reference: async ({ name }) => {
      const outputs: Record<string, Tensor> = {};
      for (const [output, { type, dims, base64 }] of Object.entries(references[name] ?? {})) {
        const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
        outputs[output] = tensorFromBytes(type, dims, bytes);
      }
      return outputs;
    },
  };
  return whileWarm(
    (model) => subject.open(model),
    () => runContract(subject),
  );
}

(globalThis as typeof globalThis & { contractPage: ContractPage }).contractPage = { runOn };
