import { toFieldloopError, type FieldloopError } from "@fieldloop/protocol";
import type { Fetcher } from "tuf-js";
import { DownloadHTTPError } from "tuf-js/dist/error.js";
import { MemorySink } from "./sinks.js";
import { AnsweredStatus, transfer, type TransferOptions } from "./transfer.js";

/**
 * What tuf-js fetches metadata with, instead of its own fetcher: that one limits the whole body by one timeout, neither retries nor
 * resumes a cut one, and writes everything to the system's temporary folder first. `onFailure` hears the coded error: tuf-js wraps what
 * is thrown here into text.
 */
export class TrustFetcher implements Fetcher {
  readonly #options: TransferOptions;
  readonly #onFailure: (error: FieldloopError) => void;

  constructor(options: TransferOptions, onFailure: (error: FieldloopError) => void) {
    this.#options = options;
    this.#onFailure = onFailure;
  }

  async downloadBytes(url: string, bytesMax: number): Promise<Buffer> {
    const sink = new MemorySink();
    try {
      await transfer(url, bytesMax, sink, this.#options);
      return sink.bytes();
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#onFailure(coded);
      // 403 and 404 tell tuf-js that there is no newer root (TUF section 5.3.3).
      if (coded instanceof AnsweredStatus) throw new DownloadHTTPError(coded.message, coded.statusCode);
      throw coded;
    }
  }

  /** Targets are fetched by {@link fetchTarget}, which resumes into the folder where they will be: tuf-js is never asked to. */
  downloadFile(): Promise<never> {
    return Promise.reject(new TypeError("Targets are fetched by fetchTarget"));
  }
}
