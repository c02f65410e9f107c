import type { Proportion } from "@fieldloop/protocol";
import type { FleetClient } from "../client.js";

/** A stretch of time in milliseconds; the server answers for predictions made within it. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** Accuracy from the application's feedback, over several devices together. */
export async function fieldAccuracy(
  client: FleetClient,
  devices: readonly string[],
  span: Span,
): Promise<{ accuracy: number; count: number }> {
  let successes = 0;
  let count = 0;
  for (const device of devices) {
    const query = new URLSearchParams({ device, from: String(span.from), to: String(span.to) });
    const share = await client.get<Proportion>(`/api/v1/accuracy?${query.toString()}`);
    successes += share.successes;
    count += share.count;
  }
  return { accuracy: count === 0 ? Number.NaN : successes / count, count };
}

/** 0.9731 → 97.3 % */
export function percent(share: number): string {
  return Number.isNaN(share) ? "–" : `${(share * 100).toFixed(1)} %`;
}

export function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
