import { SERVER_LIMITS } from "../limits.js";
import { BUCKET_MS } from "../store/telemetry.js";
import type { Decoded } from "./message.js";

/** What sharing looks at. */
export interface Queued {
  readonly device: string;
  readonly decoded?: Decoded;
}

/**
 * The next unit of work: in the order of arrival, but of one device only so much that the others are not kept waiting. Each device's own
 * messages stay in their order. A message alone may cost more than a device's share; it is then all that is taken of that device.
 * @param decode called once for each message that is taken, before its cost is asked for
 */
export function nextShare<Item extends Queued>(
  queue: readonly Item[],
  decode: (item: Item) => void,
): { taken: Item[]; left: Item[] } {
  const taken: Item[] = [];
  const left: Item[] = [];
  const spent = new Map<string, number>();
  let total = 0;
  for (const item of queue) {
    const mine = spent.get(item.device) ?? 0;
    const full =
      taken.length >= SERVER_LIMITS.ingestCommitMessagesMax || total >= SERVER_LIMITS.ingestCommitRowsMax;
    if (full || mine >= SERVER_LIMITS.ingestCommitDeviceRowsMax) {
      left.push(item);
      continue;
    }
    decode(item);
    const cost = rowsOf(item.decoded);
    spent.set(item.device, mine + cost);
    total += cost;
    taken.push(item);
  }
  return { taken, left };
}

/** About how many rows a message touches: a batch one in each bucket of time, feedback one for each of its items. */
function rowsOf(decoded: Decoded | undefined): number {
  if (decoded?.kind === "predictions") {
    const { time, count } = decoded.message;
    return Math.min(count, 1 + (time[count - 1]! - time[0]!) / BUCKET_MS);
  }
  if (decoded?.kind === "event" && decoded.message.data.type === "feedback") {
    return decoded.message.data.items.length;
  }
  return 1;
}
