import { sha256Hex } from "@fieldloop/protocol";

/**
 * The id of a configuration: the same for the same content, in whatever order its fields were written, at any depth. Devices say it
 * back once they have applied it.
 */
export function configIdOf(policy: object): string {
  return `cfg_${sha256Hex(new TextEncoder().encode(JSON.stringify(ordered(policy)))).slice(0, 16)}`;
}

/** With the fields of every object in the order of their names; the order of a list says something and stays. */
function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, ordered(inner)]),
  );
}
