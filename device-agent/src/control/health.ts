import type { Warnings } from "./warnings.js";

/** Whether the agent does its work, and why it does not: what `GET /healthz` answers. */
export function healthOf(
  hostReady: boolean,
  warnings: Pick<Warnings, "list">,
): { readonly healthy: boolean; readonly reasons: string[] } {
  const reasons: string[] = [];
  if (!hostReady) reasons.push("the inference host is not running");
  for (const warning of warnings.list()) {
    if (warning.severity === "error") reasons.push(`${warning.code}: ${warning.message}`);
  }
  return { healthy: reasons.length === 0, reasons };
}
