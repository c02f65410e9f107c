import { FieldloopError, type Assignment } from "@fieldloop/protocol";
import type { TrustClient } from "./trust/trust-client.js";

/** What the maker of a package signed about it. */
export interface TrustedPackage {
  /** Of its manifest, which holds the hashes of all other files. */
  readonly packageSha256: string;
  readonly manifestBytes: number;
  /** The classes of devices that it is for; null: any. */
  readonly deviceClasses: readonly string[] | null;
}

/** Whom the update believes about packages. Neither broker nor artifact store is: they carry what was signed. */
export interface PackageTrust {
  /** @throws FieldloopError `trust_*` */
  package(wanted: Assignment, signal: AbortSignal): Promise<TrustedPackage>;
}

/** Not now, but perhaps later: the metadata could not be had, or is not fresh. The installed version keeps running meanwhile. */
const NOT_NOW: ReadonlySet<string> = new Set([
  "trust_unreachable",
  "trust_metadata_expired",
  "trust_clock_back",
  "download_too_slow",
  "unavailable",
]);
/** The metadata does not name the package: it may be on its way still. */
const UNKNOWN = "trust_target_unknown";

/** How often a refusal of the trust is worth another try: for ever, a few times, or never. */
export function trustRetries(error: FieldloopError): "always" | "some" | "never" {
  const code: string = error.code;
  if (NOT_NOW.has(code)) return "always";
  return code === UNKNOWN ? "some" : "never";
}

/**
 * The assignment and the metadata must speak of the very same package: the one says what this device is to run, the other that it is what
 * its maker published.
 * @throws FieldloopError `package_hash_mismatch`
 */
export function requireSamePackage(wanted: Assignment, trusted: TrustedPackage): void {
  const { model, version, packageSha256, manifestBytes } = wanted;
  if (trusted.packageSha256 === packageSha256 && trusted.manifestBytes === manifestBytes) return;
  throw new FieldloopError(
    "package_hash_mismatch",
    `Verify package: what is signed as ${model}@${version} has another hash or length than the assignment says`,
  );
}

/** What the targets keys of the fleet say, by the trust client of this device. */
export function targetTrust(client: Pick<TrustClient, "package">): PackageTrust {
  return { package: ({ model, version }, signal) => client.package(model, version, signal) };
}
