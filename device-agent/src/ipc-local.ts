import type { Frame, Tensor, TensorInfo } from "@fieldloop/runtime";
import type { PackageToRun } from "./ipc.js";
import type { PredictionAnswer } from "./prediction-answer.js";

/** What programs on this machine ask of the inference host, through control: see `docs/local-api.md`. Tensors are cloned on their way. */

/** A model by name; the version that a lane runs, or else the newest that is loaded, where none is said. */
export interface ModelChoice {
  readonly model: string;
  readonly version: number | undefined;
}

/** Tensors by input name, or one image file to be made ready as the manifest says. */
export type InferInput =
  | { readonly feeds: Readonly<Record<string, Tensor>> }
  | { readonly image: Uint8Array };

export type LocalRequest =
  | (ModelChoice & {
      readonly kind: "infer";
      readonly input: InferInput;
      /** Names of outputs; undefined for all. */
      readonly outputs: readonly string[] | undefined;
      /** How long it may wait for its turn. */
      readonly timeoutMs: number;
    })
  /** Loads a package beside those of the lanes. */
  | { readonly kind: "load_model"; readonly package: PackageToRun }
  | (ModelChoice & { readonly kind: "unload_model" })
  | (ModelChoice & { readonly kind: "model_metadata" })
  | { readonly kind: "loaded_models" }
  /** A frame for a lane, from a program instead of the lane's source: a prediction like any other. */
  | { readonly kind: "predict"; readonly lane: string; readonly frame: Frame };

export interface LoadedModelEntry {
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
  /** Lanes that run it; none where it was loaded on demand. */
  readonly lanes: readonly string[];
}

export interface LocalResponses {
  readonly infer: {
    readonly model: string;
    readonly version: number;
    readonly outputs: Readonly<Record<string, Tensor>>;
  };
  readonly load_model: Record<string, never>;
  readonly unload_model: Record<string, never>;
  readonly model_metadata: {
    readonly model: string;
    readonly version: number;
    readonly executionProvider: string;
    readonly inputs: readonly TensorInfo[];
    readonly outputs: readonly TensorInfo[];
  };
  readonly loaded_models: readonly LoadedModelEntry[];
  readonly predict: PredictionAnswer;
}
