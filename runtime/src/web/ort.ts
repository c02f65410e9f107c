import * as ort from "onnxruntime-web/webgpu";
import type { Backend } from "../backend.js";
import { webBackend } from "./ort-session.js";

export interface WebBackendOptions {
  /** Folder with the `ort-wasm-*.mjs` and `.wasm` files of onnxruntime-web, ending in a slash, same origin or with CORS. */
  readonly wasmBaseUrl: string;
  /**
   * Threads of the WebAssembly part. More than 1 works only on a page that is cross-origin isolated (headers COOP and COEP).
   * Default 1. It holds for the page: the first session fixes it.
   */
  readonly threadCount?: number;
}

/** ONNX Runtime in the browser: `webgpu` where the page has it, `wasm` everywhere. Nothing is loaded before the first session. */
export function ortWeb(options: WebBackendOptions): Backend {
  ort.env.logLevel = "fatal";
  ort.env.wasm.wasmPaths = options.wasmBaseUrl;
  ort.env.wasm.numThreads = options.threadCount ?? 1;
  return webBackend(ort, "gpu" in globalThis.navigator ? ["webgpu", "wasm"] : ["wasm"]);
}
