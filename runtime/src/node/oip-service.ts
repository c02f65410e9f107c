import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Session, Tensor, TensorInfo } from "../backend.js";
import type {
  InferenceService,
  OipInferRequest,
  OipInferResponse,
  OipModelIndexEntry,
  OipModelMetadata,
  OipServerMetadata,
  OipTensorMetadata,
} from "../oip/service.js";
import { datatypeOf } from "../oip/tensors.js";

/** A model that a {@link SessionService} can open. */
export interface ServedModel {
  readonly name: string;
  readonly version: string;
  open(): Promise<Session>;
}

export interface SessionServiceOptions {
  /** Of the program that serves. */
  readonly version: string;
  /** What computes, e.g. `onnxruntime-node 1.30.0 cpu`. */
  readonly platform: string;
}

interface Slot {
  readonly model: ServedModel;
  state: OipModelIndexEntry["state"];
  reason: string;
  session: Session | undefined;
  /** Loading and unloading of one model take turns. */
  turn: Promise<void>;
}

/** Plain models in this process behind the Open Inference Protocol: no heads, no signals, tensors in and out. */
export class SessionService implements InferenceService {
  readonly #slots = new Map<string, Slot>();
  readonly #options: SessionServiceOptions;
  #stopping = false;

  /** @throws FieldloopError `already_exists` where two models have one name */
  constructor(models: readonly ServedModel[], options: SessionServiceOptions) {
    this.#options = options;
    for (const model of models) {
      if (this.#slots.has(model.name)) {
        throw new FieldloopError("already_exists", `Serve models: two are called "${model.name}"`);
      }
      this.#slots.set(model.name, {
        model,
        state: "UNAVAILABLE",
        reason: "not loaded",
        session: undefined,
        turn: Promise.resolve(),
      });
    }
  }

  serverMetadata(): OipServerMetadata {
    return {
      name: "fieldloop",
      version: this.#options.version,
      extensions: ["binary_tensor_data", "model_repository"],
    };
  }

  async ready(): Promise<boolean> {
    return !this.#stopping;
  }

  async models(): Promise<OipModelIndexEntry[]> {
    return [...this.#slots.values()].map(({ model, state, reason }) => ({
      name: model.name,
      version: model.version,
      state,
      reason,
    }));
  }

  async modelReady(model: string, version: string | undefined): Promise<boolean> {
    return this.#slot(model, version).session !== undefined;
  }

  async modelMetadata(model: string, version: string | undefined): Promise<OipModelMetadata> {
    const slot = this.#slot(model, version);
    const session = sessionOf(slot);
    return {
      name: model,
      versions: [slot.model.version],
      platform: this.#options.platform,
      inputs: session.inputs.map(toMetadata),
      outputs: session.outputs.map(toMetadata),
    };
  }

  load(model: string): Promise<void> {
    const slot = this.#slot(model, undefined);
    return inTurn(slot, async () => {
      if (slot.session !== undefined) return;
      if (this.#stopping)
        throw new FieldloopError("unavailable", `Load model "${model}": the server is stopping`);
      slot.state = "LOADING";
      try {
        slot.session = await slot.model.open();
        slot.state = "READY";
        slot.reason = "";
      } catch (error) {
        slot.state = "UNAVAILABLE";
        slot.reason = toFieldloopError(error).message;
        throw error;
      }
    });
  }

  unload(model: string): Promise<void> {
    const slot = this.#slot(model, undefined);
    return inTurn(slot, async () => {
      const { session } = slot;
      slot.session = undefined;
      slot.state = "UNAVAILABLE";
      slot.reason = "unloaded";
      await session?.release();
    });
  }

  async infer(request: OipInferRequest): Promise<OipInferResponse> {
    const slot = this.#slot(request.model, request.version);
    const session = sessionOf(slot);
    const outputs = await session.run(Object.fromEntries<Tensor>(request.inputs), request.outputs);
    return { model: slot.model.name, version: slot.model.version, outputs: new Map(Object.entries(outputs)) };
  }

  /** Releases every model; nothing can be loaded from then on. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#slots.keys()].map((name) => this.unload(name)));
  }

  #slot(model: string, version: string | undefined): Slot {
    const slot = this.#slots.get(model);
    if (slot === undefined || (version !== undefined && version !== slot.model.version)) {
      const asked = version === undefined ? `"${model}"` : `"${model}" version "${version}"`;
      throw new FieldloopError("not_found", `Answer request: no model ${asked.slice(0, 300)}`);
    }
    return slot;
  }
}

function sessionOf({ model, session, reason }: Slot): Session {
  if (session !== undefined) return session;
  throw new FieldloopError("unavailable", `Answer request: model "${model.name}" is not ready: ${reason}`);
}

function inTurn(slot: Slot, work: () => Promise<void>): Promise<void> {
  const turn = slot.turn.then(work);
  slot.turn = turn.catch(() => undefined);
  return turn;
}

function toMetadata({ name, type, dims }: TensorInfo): OipTensorMetadata {
  return {
    name,
    datatype: datatypeOf(type),
    shape: dims.map((dim) => (typeof dim === "number" && dim >= 0 ? dim : -1)),
  };
}
