import { FieldloopError } from "@fieldloop/protocol";
import type { Session, Tensor, TensorInfo } from "../backend.js";
import { checkFeeds, checkFetches } from "../feeds.js";
import type { OipClient, OipRemoteTensor } from "./client.js";
import { elementTypeOfDatatype } from "./tensors.js";

/** A model on a server as a session: its signature is what the server says. */
export class OipSession implements Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly omitted: readonly string[];
  readonly #client: OipClient;
  readonly #model: string;
  readonly #version: string | undefined;
  #released: Promise<void> | undefined;
  #running = 0;
  #idle: (() => void) | undefined;

  private constructor(
    client: OipClient,
    model: string,
    version: string | undefined,
    signature: Pick<Session, "inputs" | "outputs" | "omitted">,
  ) {
    this.#client = client;
    this.#model = model;
    this.#version = version;
    this.inputs = signature.inputs;
    this.outputs = signature.outputs;
    this.omitted = signature.omitted;
  }

  /**
   * The client belongs to the session from then on, and is closed with it or if this fails.
   * @throws FieldloopError `provider_unavailable` where the server can't be reached or is not ready, `not_found` for a model that
   * it does not have, `model_load_failed` for an input that no tensor here can carry
   */
  static async open(client: OipClient, model: string, version: string | undefined): Promise<OipSession> {
    try {
      if (!(await client.modelReady(model, version))) {
        // Metadata says more than a plain no: an unknown model is not found.
        await client.modelMetadata(model, version);
        throw new FieldloopError(
          "provider_unavailable",
          `Open model "${model}": its server says it is not ready`,
        );
      }
      const metadata = await client.modelMetadata(model, version);
      return new OipSession(client, model, version, signatureOf(metadata));
    } catch (error) {
      await client.close();
      if (error instanceof FieldloopError && (error.code === "unavailable" || error.code === "timed_out")) {
        throw new FieldloopError("provider_unavailable", error.message, { cause: error });
      }
      throw error;
    }
  }

  async run(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    if (this.#released !== undefined) {
      throw new FieldloopError("conflict", "Run model: its session was released");
    }
    checkFeeds(this.inputs, feeds);
    const wanted = checkFetches(this.outputs, fetches);
    const outputs = await this.#infer(feeds, wanted);
    const results: Record<string, Tensor> = {};
    for (const name of wanted) {
      const tensor = outputs.get(name);
      if (tensor === undefined) {
        throw new FieldloopError("model_run_failed", `Run model: the server gave no output "${name}"`);
      }
      results[name] = tensor;
    }
    return results;
  }

  async #infer(
    feeds: Readonly<Record<string, Tensor>>,
    wanted: readonly string[],
  ): Promise<ReadonlyMap<string, Tensor>> {
    this.#running++;
    try {
      const { outputs } = await this.#client.infer({
        model: this.#model,
        version: this.#version,
        id: undefined,
        parameters: {},
        inputs: new Map(this.inputs.map(({ name }) => [name, feeds[name]!])),
        outputs: wanted,
      });
      return outputs;
    } finally {
      if (--this.#running === 0) this.#idle?.();
    }
  }

  release(): Promise<void> {
    this.#released ??= this.#end();
    return this.#released;
  }

  async #end(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    await this.#client.close();
  }
}

function signatureOf(metadata: {
  readonly inputs: readonly OipRemoteTensor[];
  readonly outputs: readonly OipRemoteTensor[];
}): Pick<Session, "inputs" | "outputs" | "omitted"> {
  const inputs = metadata.inputs.map((tensor) => {
    const info = toInfo(tensor);
    if (info !== undefined) return info;
    throw new FieldloopError(
      "model_load_failed",
      `Open model: its input "${tensor.name}" is ${tensor.datatype}, which no tensor here can carry`,
    );
  });
  const outputs = metadata.outputs.map((tensor) => ({ tensor, info: toInfo(tensor) }));
  return {
    inputs,
    outputs: outputs.flatMap(({ info }) => info ?? []),
    omitted: outputs.flatMap(({ tensor, info }) => (info === undefined ? [tensor.name] : [])),
  };
}

function toInfo({ name, datatype, shape }: OipRemoteTensor): TensorInfo | undefined {
  try {
    return { name, type: elementTypeOfDatatype(datatype), dims: shape.map((dim) => (dim < 0 ? -1 : dim)) };
  } catch {
    // Only the data type can be at fault, and the caller names it.
    return undefined;
  }
}
