import { request } from "node:http";

export interface LocalAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly bytes: Buffer;
  /** The whole body as JSON; throws where it is none. */
  readonly json: Record<string, unknown>;
}

export interface LocalCall {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
}

/** One request to the local interface, over TCP (`http://…`) or a unix socket (its path). */
export function call(address: string, path: string, options: LocalCall = {}): Promise<LocalAnswer> {
  const { method = options.body === undefined ? "GET" : "POST", headers = {}, body } = options;
  const where = address.startsWith("http") ? addressOf(address) : { socketPath: address };
  return new Promise((resolve, reject) => {
    const sent = request({ ...where, path, method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const bytes = Buffer.concat(chunks);
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          bytes,
          get json() {
            return JSON.parse(bytes.toString()) as Record<string, unknown>;
          },
        });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port) };
}

/** As any client of the Open Inference Protocol has to write it: JSON, then the raw tensors in the order of the inputs. */
export function binaryRequest(
  inputs: readonly {
    name: string;
    shape: number[];
    datatype: string;
    raw: Uint8Array;
    parameters?: object;
  }[],
  extra: Readonly<Record<string, unknown>> = {},
): LocalCall {
  const head = Buffer.from(
    JSON.stringify({
      ...extra,
      inputs: inputs.map(({ raw, parameters, ...tensor }) => ({
        ...tensor,
        parameters: { ...parameters, binary_data_size: raw.length },
      })),
    }),
  );
  return {
    headers: {
      "content-type": "application/octet-stream",
      "inference-header-content-length": String(head.length),
    },
    body: Buffer.concat([head, ...inputs.map(({ raw }) => raw)]),
  };
}

/** Outputs of an answer with raw tensors: float32 by name. */
export function binaryOutputs(answer: LocalAnswer): Record<string, number[]> {
  const length = Number(answer.headers["inference-header-content-length"]);
  const head = JSON.parse(answer.bytes.subarray(0, length).toString()) as {
    outputs: { name: string; parameters: { binary_data_size: number } }[];
  };
  let at = length;
  const outputs: Record<string, number[]> = {};
  for (const { name, parameters } of head.outputs) {
    const bytes = answer.bytes.subarray(at, at + parameters.binary_data_size);
    outputs[name] = [...new Float32Array(new Uint8Array(bytes).buffer)];
    at += parameters.binary_data_size;
  }
  return outputs;
}

/** Server-sent events of a subscription, read one after the other. */
export class EventReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #abort: AbortController;
  readonly #decoder = new TextDecoder();
  #text = "";

  private constructor(body: ReadableStream<Uint8Array>, abort: AbortController) {
    this.#reader = body.getReader();
    this.#abort = abort;
  }

  static async open(url: string): Promise<EventReader> {
    const abort = new AbortController();
    const response = await fetch(url, { signal: abort.signal });
    if (response.status !== 200 || !response.body)
      throw new Error(`${response.status} ${await response.text()}`);
    return new EventReader(response.body, abort);
  }

  /** The next event that is no comment; undefined at the end. */
  async next(): Promise<{ id?: string; event?: string; data: Record<string, unknown> } | undefined> {
    for (;;) {
      const end = this.#text.indexOf("\n\n");
      if (end < 0) {
        const { done, value } = await this.#reader.read();
        if (done) return undefined;
        this.#text += this.#decoder.decode(value, { stream: true });
        continue;
      }
      const block = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 2);
      const fields = Object.fromEntries(
        block
          .split("\n")
          .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
      );
      if (fields["data"] === undefined) continue;
      return { ...fields, data: JSON.parse(fields["data"]) as Record<string, unknown> };
    }
  }

  close(): void {
    this.#abort.abort();
  }
}
