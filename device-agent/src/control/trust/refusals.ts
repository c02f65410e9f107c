import { FieldloopError, type ErrorCode, type TrustRole } from "@fieldloop/protocol";
import { LengthOrHashMismatchError, UnsignedMetadataError } from "@tufjs/models/dist/error.js";
import { BadVersionError, ExpiredMetadataError, RepositoryError } from "tuf-js/dist/error.js";
import { reasonOf } from "../files.js";

/**
 * tuf-js's error as one of ours. Which attack a wrong version is depends on where it was found: a snapshot or targets metadata of another
 * version than the one that the signed list above them names are a mix; all else went back.
 */
export function refusalOf(error: unknown, kind: TrustRole, name: string): FieldloopError {
  if (error instanceof FieldloopError) return error;
  const reason = reasonOf(error);
  return new FieldloopError(codeOf(error, kind, reason), `Verify "${name}" metadata: ${reason}`, {
    cause: error,
  });
}

function codeOf(error: unknown, kind: TrustRole, reason: string): ErrorCode {
  if (error instanceof UnsignedMetadataError) return "trust_signature_insufficient";
  if (error instanceof ExpiredMetadataError) return "trust_metadata_expired";
  if (error instanceof LengthOrHashMismatchError) return "trust_metadata_mixed";
  if (error instanceof BadVersionError) {
    if (kind === "targets") return "trust_metadata_mixed";
    // Snapshot: "Snapshot version doesn't match timestamp" against "New version … is less than current version …".
    return kind === "snapshot" && !/less than/.test(reason)
      ? "trust_metadata_mixed"
      : "trust_rollback_refused";
  }
  // A list that no longer names what it named before, or does not name what it has to.
  if (error instanceof RepositoryError && reason.startsWith("Missing")) {
    return /in new snapshot/.test(reason) ? "trust_rollback_refused" : "trust_metadata_mixed";
  }
  return "trust_metadata_malformed";
}
