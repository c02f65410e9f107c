import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import type { Backend } from "../backend.js";
import { webBackend } from "../web/ort-session.js";

// Its threads would be worker threads that nobody budgets for, and outlive the session.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

const backend = webBackend(ort, ["wasm"]);

/**
 * ONNX Runtime as WebAssembly in Node: ten times slower than native, for machines without a native library (musl, other
 * CPUs). One thread; a run blocks its thread.
 */
export const ortWebNode: Backend = {
  ...backend,
  openSession: async (model, options) =>
    backend.openSession(typeof model === "string" ? await readFile(model) : model, options),
};
