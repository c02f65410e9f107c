/** Content-addressed bytes: the name of a blob is the SHA-256 of its content, so a blob never changes. */
export interface BlobStore {
  /**
   * Stores what `content` yields; the same content twice is one blob.
   * @param options.sha256 refused with `package_hash_mismatch` where the content has another hash
   * @param options.bytesMax refused with `limit_exceeded` above it
   */
  put(content: BlobContent, options?: { sha256?: string; bytesMax?: number }): Promise<BlobInfo>;
  /** @returns undefined where there is no such blob */
  stat(sha256: string): Promise<BlobInfo | undefined>;
  has(sha256: string): Promise<boolean>;
  /** The whole content, its hash checked. @throws FieldloopError `not_found`, `storage_failed` where the stored bytes were changed */
  get(sha256: string): Promise<Uint8Array>;
  /** The bytes `from` (0) to `to` (end, exclusive), in chunks; not hashed, since a part has no hash. @throws FieldloopError `not_found` */
  stream(sha256: string, range?: { from?: number; to?: number }): Promise<AsyncIterable<Uint8Array>>;
  /** @returns false where there was no such blob */
  delete(sha256: string): Promise<boolean>;
}

export type BlobContent = Uint8Array | AsyncIterable<Uint8Array>;

export interface BlobInfo {
  readonly sha256: string;
  readonly bytes: number;
}
