import { z } from "zod";
import { countSchema } from "../names.js";

/**
 * Store-and-forward streams. Each message of one carries (`boot`, `seq`, `prev`): `seq` grows within a boot; `prev` is the
 * sequence number of the message before it that is still unacknowledged and was not evicted, 0 where there is none. So a reader
 * tells a loss (`prev` unknown) from an eviction, and a device that starts sending again always begins with an acceptable message.
 * A device sends an older boot's messages before a newer boot's.
 * The device deletes from its spool only on `down/ack`, which ingest sends after the commit.
 */
export const STREAMS = ["event", "profile", "predictions", "sample"] as const;
export type Stream = (typeof STREAMS)[number];

export const bootSchema = z.int().min(1);
export const deliveryShape = { boot: bootSchema, seq: z.int().min(1), prev: countSchema };

export interface Delivery {
  readonly boot: number;
  readonly seq: number;
  readonly prev: number;
}

export type DeliveryVerdict = "accept" | "duplicate" | "gap" | "superseded";

/** What ingest does with a message, given the last (`boot`, `seq`) that is durable for this device and stream. */
export function judgeDelivery(
  cursor: { boot: number; seq: number } | undefined,
  message: Delivery,
): DeliveryVerdict {
  if (cursor === undefined || message.boot > cursor.boot) return message.prev === 0 ? "accept" : "gap";
  if (message.boot < cursor.boot) return "superseded";
  if (message.seq <= cursor.seq) return "duplicate";
  return message.prev <= cursor.seq ? "accept" : "gap";
}
