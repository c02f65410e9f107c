import { DIRECTOR_TARGET, TRUST_ROLES, packageTargetSchema, type SigningRequest } from "@fieldloop/protocol";
import type { Root, TargetFile, Targets } from "@tufjs/models";
import { keyIdsOf, readSigned, rolesOf, type RootRoles } from "./documents.js";
import { draftOf } from "./request.js";

/**
 * What a signature would bring about, in lines for the person who is asked for it: made from the very parts that are signed.
 * @throws FieldloopError `trust_metadata_malformed`
 */
export function describeRequest(request: SigningRequest): string[] {
  const { root, targets } = draftOf(request);
  const current = {
    root: readSigned("root", request.current.root),
    targets: readSigned("targets", request.current.targets),
  };
  const lines = [
    ...(root ? describeRoot(current.root, root) : []),
    ...(targets ? describeTargets(current.targets, targets) : []),
  ];
  return lines.map(printable);
}

/** A terminal obeys control characters: a name or reason must not be able to hide a line. */
function printable(line: string): string {
  return line.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\uFFFD");
}

function describeRoot(before: Root, after: Root): string[] {
  return [
    `root ${after.version} (in force: ${before.version}), good until ${after.expires}`,
    ...describeRoles(rolesOf(before), rolesOf(after)).map((line) => `  ${line}`),
  ];
}

/** Changes of keys and thresholds; empty where there are none. */
export function describeRoles(before: RootRoles, after: RootRoles): string[] {
  return TRUST_ROLES.flatMap((role) => {
    const had = new Set(keyIdsOf(before[role]));
    const has = new Set(keyIdsOf(after[role]));
    const threshold = `${after[role].threshold} of ${has.size}`;
    return [
      ...[...has].filter((keyId) => !had.has(keyId)).map((keyId) => `${role}: adds key ${keyId}`),
      ...[...had].filter((keyId) => !has.has(keyId)).map((keyId) => `${role}: revokes key ${keyId}`),
      ...(before[role].threshold === after[role].threshold && had.size === has.size
        ? []
        : [`${role}: signed by ${threshold}, was ${before[role].threshold} of ${had.size}`]),
    ];
  });
}

function describeTargets(before: Targets, after: Targets): string[] {
  const paths = [...new Set([...Object.keys(before.targets), ...Object.keys(after.targets)])].sort();
  return [
    `targets ${after.version} (in force: ${before.version}), good until ${after.expires}`,
    ...paths.flatMap((path) => {
      const [old, now] = [before.targets[path], after.targets[path]];
      if (old && now && old.equals(now)) return [];
      if (!now) return [`  removes ${path}`];
      const verb = old ? "changes" : "adds";
      return [`  ${verb} ${describeTarget(path, now)}`];
    }),
  ];
}

function describeTarget(path: string, target: TargetFile): string {
  const sha256 = target.hashes["sha256"] ?? "without a hash";
  if (path === DIRECTOR_TARGET) return `the keys that direct devices: ${sha256}`;
  const about = packageTargetSchema.safeParse(target.custom["fieldloop"]);
  if (!about.success) return `${path}: ${sha256}`;
  const { model, version, deviceClasses, evidence } = about.data;
  const classes = deviceClasses === null ? "" : `, for ${deviceClasses.join(", ")} only`;
  const reason = evidence.reason === undefined ? "" : ` ("${evidence.reason}")`;
  return `${model}@${version}: ${sha256}, evidence ${evidence.verdict}${reason}${classes}`;
}
