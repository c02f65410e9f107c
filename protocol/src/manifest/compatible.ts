import { FieldloopError } from "../errors.js";
import { LIMITS } from "../limits.js";
import type { Facts } from "../messages/state.js";
import { ROOT_NODE } from "./deciding.js";
import type { Manifest, Variant } from "./manifest.js";

/** By what a package does not fit a device. */
export type IncompatibilityReason =
  | "manifest_schema"
  | "device_class"
  | "lane_model"
  | "opset"
  | "ir_version"
  | "execution_provider"
  | "cpu_flags"
  | "memory";

export interface Incompatibility {
  readonly code: "package_incompatible" | "device_class_mismatch";
  readonly reason: IncompatibilityReason;
  /** Names the package, what it wants, and what the device has. */
  readonly message: string;
}

/** Of the facts that a device reports, those that decide. */
export type CompatibilityFacts = Pick<
  Facts,
  | "cpuFlags"
  | "executionProviders"
  | "memoryBytes"
  | "deviceClass"
  | "opsetMax"
  | "irVersionMax"
  | "manifestSchemaMax"
>;

export interface CompatibilityOptions {
  /** The classes that the package is for, as its signed metadata says; null or left out: any. */
  readonly deviceClasses?: readonly string[] | null | undefined;
  /** Where it is to run; a lane of no model takes any. */
  readonly lane?: { readonly name: string; readonly model: string | null } | undefined;
}

/** Stands in a device's facts for a server that runs models for it: it takes any variant. */
const SERVED = "oip";

/**
 * Whether a package can run on a device at all, before a byte of its models travels: the same check before an offer and on the device.
 * What a device does not say (null) is not held against the package. Undefined where it fits.
 */
export function incompatibility(
  manifest: Manifest,
  facts: CompatibilityFacts,
  options: CompatibilityOptions = {},
): Incompatibility | undefined {
  const name = `${manifest.model}@${manifest.version}`;
  const refuse = (reason: IncompatibilityReason, what: string): Incompatibility => ({
    code: reason === "device_class" ? "device_class_mismatch" : "package_incompatible",
    reason,
    message: `Fit "${name}" to device: ${what}`,
  });
  const { deviceClasses, lane } = options;
  if (deviceClasses && !deviceClasses.includes(facts.deviceClass)) {
    return refuse(
      "device_class",
      `it is for devices of ${deviceClasses.join(", ")}, this one is "${facts.deviceClass}"`,
    );
  }
  if (lane && lane.model !== null && lane.model !== manifest.model) {
    return refuse("lane_model", `lane "${lane.name}" is for model "${lane.model}"`);
  }
  const root = { name: ROOT_NODE, variants: manifest.variants };
  for (const part of [root, ...manifest.nodes]) {
    const refusals = part.variants.map((variant) => refusalOf(variant, facts));
    const first = refusals[0];
    if (first === undefined || refusals.includes(undefined)) continue;
    const all = refusals.map((refusal, at) => `variant "${part.variants[at]!.name}" ${refusal!.what}`);
    return refuse(first.reason, `node "${part.name}": ${all.join("; ")}`.slice(0, TEXT_MAX));
  }
  return undefined;
}

const TEXT_MAX = LIMITS.textLengthMax - 200;

/** @throws FieldloopError `package_incompatible` or `device_class_mismatch`, with the reason in its detail */
export function requireCompatible(
  manifest: Manifest,
  facts: CompatibilityFacts,
  options: CompatibilityOptions = {},
): void {
  const found = incompatibility(manifest, facts, options);
  if (found) throw new FieldloopError(found.code, found.message, { detail: { reason: found.reason } });
}

/**
 * A manifest of a later form than a device reads is told apart from a broken one.
 * @throws FieldloopError `package_incompatible`
 */
export function requireReadableManifest(
  manifestBytes: Uint8Array,
  facts: Pick<Facts, "manifestSchemaMax">,
): void {
  const schema = schemaOf(manifestBytes);
  if (schema === undefined || schema <= facts.manifestSchemaMax) return;
  throw new FieldloopError(
    "package_incompatible",
    `Fit package to device: its manifest has the form ${schema}, this device reads up to ${facts.manifestSchemaMax}`,
    { detail: { reason: "manifest_schema" satisfies IncompatibilityReason } },
  );
}

/** Memory and latency that a variant may cost on devices of a class. */
export function budgetOf(
  variant: Pick<Variant, "memoryBytesMax" | "latencyMsMax" | "budgets">,
  deviceClass: string,
): { readonly memoryBytesMax: number | undefined; readonly latencyMsMax: number | undefined } {
  const { budgets } = variant;
  const own = budgets && Object.hasOwn(budgets, deviceClass) ? budgets[deviceClass] : undefined;
  return {
    memoryBytesMax: own?.memoryBytesMax ?? variant.memoryBytesMax,
    latencyMsMax: own?.latencyMsMax ?? variant.latencyMsMax,
  };
}

function refusalOf(
  variant: Variant,
  facts: CompatibilityFacts,
): { readonly reason: IncompatibilityReason; readonly what: string } | undefined {
  const { opsetMax, irVersionMax, executionProviders, cpuFlags, memoryBytes, deviceClass } = facts;
  // What a server runs is the server's business.
  if (executionProviders.includes(SERVED)) return undefined;
  if (opsetMax !== null && variant.opset > opsetMax) {
    return { reason: "opset", what: `has opset ${variant.opset}, this device reads up to ${opsetMax}` };
  }
  if (irVersionMax !== null && (variant.irVersion ?? 0) > irVersionMax) {
    const what = `has IR version ${variant.irVersion}, this device reads up to ${irVersionMax}`;
    return { reason: "ir_version", what };
  }
  if (!variant.executionProviders.some((provider) => executionProviders.includes(provider))) {
    const what = `wants ${variant.executionProviders.join(" or ")}, this device has ${executionProviders.join(", ")}`;
    return { reason: "execution_provider", what };
  }
  const required = variant.cpuFlagsRequired;
  if (required && !required.some((flag) => cpuFlags.includes(flag))) {
    const what = `wants a processor with ${required.join(" or ")}, this one has ${cpuFlags.join(", ") || "none of them"}`;
    return { reason: "cpu_flags", what };
  }
  const { memoryBytesMax = 0 } = budgetOf(variant, deviceClass);
  if (memoryBytesMax > memoryBytes) {
    return {
      reason: "memory",
      what: `wants ${memoryBytesMax} bytes of memory, this device has ${memoryBytes}`,
    };
  }
  return undefined;
}

function schemaOf(manifestBytes: Uint8Array): number | undefined {
  try {
    const parsed: unknown = JSON.parse(new TextDecoder().decode(manifestBytes));
    if (typeof parsed !== "object" || parsed === null || !("schema" in parsed)) return undefined;
    return typeof parsed.schema === "number" ? parsed.schema : undefined;
  } catch {
    return undefined;
  }
}
