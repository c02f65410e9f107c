/** Little-endian float32 out of pieces of any length, whole groups of `channels` at a time. */
export class FloatChunks {
  #rest: Buffer = Buffer.alloc(0);

  push(chunk: Buffer, channels: number): Float32Array {
    const all = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const bytes = all.length - (all.length % (4 * channels));
    this.#rest = Buffer.from(all.subarray(bytes));
    // A view wants its offset to be a multiple of four; a buffer's slice rarely has one.
    return new Float32Array(new Uint8Array(all.subarray(0, bytes)).buffer);
  }

  /** Bytes that are no whole group. */
  get rest(): number {
    return this.#rest.length;
  }
}
