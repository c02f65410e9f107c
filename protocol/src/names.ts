import { z } from "zod";
import { LIMITS } from "./limits.js";
import { DEVICE_ID_PATTERN, isDeviceId } from "./topics.js";

/** Shared leaf schemas: ids, hashes, times. */
export const deviceIdSchema = z
  .string()
  .max(LIMITS.deviceIdLengthMax)
  .regex(DEVICE_ID_PATTERN)
  .refine(isDeviceId);
export const modelNameSchema = z
  .string()
  .max(LIMITS.modelNameLengthMax)
  .regex(/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/);
export const versionSchema = z.int().min(1).max(1_000_000);
/** Lower-case hexadecimal SHA-256. */
export const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);
/** A hardware profile that packages may be made for, e.g. `linux-x64`, `jetson-orin`. */
export const deviceClassSchema = z
  .string()
  .max(64)
  .regex(/^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$/);
/** Milliseconds since 1970-01-01 UTC. */
export const timeSchema = z.int().min(0).max(8_640_000_000_000_000);
export const countSchema = z.int().min(0);
export const labelSchema = z.string().min(1).max(LIMITS.labelLengthMax);
export const textSchema = z.string().max(LIMITS.textLengthMax);

/** `parts@7` */
export function formatModelVersion(model: string, version: number): string {
  return `${model}@${version}`;
}

/** `12-3456`: number `n` within boot 12 of one device. */
export function formatPredictionId(boot: number, n: number): string {
  return `${boot}-${n}`;
}

/** The inverse of {@link formatPredictionId}; `undefined` for anything else. */
export function parsePredictionId(id: string): { boot: number; n: number } | undefined {
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(id);
  return match ? { boot: Number(match[1]), n: Number(match[2]) } : undefined;
}
