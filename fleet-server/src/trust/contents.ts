import { packageTargetPath, type PackageTarget } from "@fieldloop/protocol";
import type { BlobStore } from "../blob/blob.js";
import type { Database } from "../store/database.js";
import { TrustStore } from "../store/trust.js";
import { trustedVersions, type TrustedVersion } from "../store/trust-versions.js";
import { directorTarget, type DirectorKeys } from "./director.js";
import type { WantedTarget } from "./documents.js";

/** What targets metadata should say: every published version, and who directs. */
export class TrustContents {
  readonly #database: Database;
  readonly #blobs: BlobStore;
  readonly #director: DirectorKeys;

  constructor(database: Database, blobs: BlobStore, director: DirectorKeys) {
    this.#database = database;
    this.#blobs = blobs;
    this.#director = director;
  }

  /** The files behind the targets are stored before anything names them. */
  async wanted(): Promise<WantedTarget[]> {
    const { bytes, target } = directorTarget(this.#director.wanted);
    if (!(await this.#blobs.has(target.sha256))) await this.#blobs.put(bytes, { sha256: target.sha256 });
    return [target, ...(await trustedVersions(this.#database)).map(packageTarget)];
  }

  /** Published versions that no targets metadata name yet. */
  async awaiting(): Promise<{ model: string; version: number }[]> {
    const signed = new Set(
      (await new TrustStore(this.#database).targets()).map(({ path, sha256 }) => `${path} ${sha256}`),
    );
    return (await trustedVersions(this.#database))
      .filter(
        ({ model, version, packageSha256 }) =>
          !signed.has(`${packageTargetPath(model, version)} ${packageSha256}`),
      )
      .map(({ model, version }) => ({ model, version }));
  }
}

function packageTarget(stored: TrustedVersion): WantedTarget {
  const { model, version, packageSha256, manifestBytes, deviceClasses } = stored;
  const custom: PackageTarget = {
    model,
    version,
    packageSha256,
    deviceClasses: deviceClasses === null ? null : [...deviceClasses],
    evidence: evidenceOf(stored),
  };
  return { path: packageTargetPath(model, version), sha256: packageSha256, bytes: manifestBytes, custom };
}

/** A reason stands in for a passing evaluation; where one passed later it is not needed any more. */
function evidenceOf({ evaluation, verdict, forceReason }: TrustedVersion): PackageTarget["evidence"] {
  if (verdict !== "passed" && forceReason !== null) {
    return { evaluation, verdict: "forced", reason: forceReason };
  }
  return { evaluation, verdict: verdict ?? "none" };
}
