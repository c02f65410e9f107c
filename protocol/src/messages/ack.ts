import { z } from "zod";
import { decodeCbor, encodeCbor } from "../cbor.js";
import { FieldloopError } from "../errors.js";
import { LIMITS } from "../limits.js";
import { STREAMS, type Stream } from "./delivery.js";

/** `down/ack`: per stream the highest contiguous (`boot`, `seq`) that is durable. As CBOR `[[stream, boot, seq], …]`: it travels with every batch. */
export interface Ack {
  readonly stream: Stream;
  readonly boot: number;
  readonly seq: number;
}

const ackSchema = z
  .array(
    z
      .tuple([
        z
          .int()
          .min(0)
          .max(STREAMS.length - 1),
        z.int().min(1),
        z.int().min(1),
      ])
      .rest(z.unknown()),
  )
  .max(STREAMS.length);

export function encodeAck(acks: readonly Ack[]): Uint8Array {
  return encodeCbor(acks.map(({ stream, boot, seq }) => [STREAMS.indexOf(stream), boot, seq]));
}

/** @throws FieldloopError `message_too_large`, `cbor_*` or `message_schema` */
export function decodeAck(bytes: Uint8Array): Ack[] {
  if (bytes.length > LIMITS.ackBytesMax) {
    throw new FieldloopError(
      "message_too_large",
      `Decode acknowledgement: ${bytes.length} bytes, at most ${LIMITS.ackBytesMax}`,
    );
  }
  const parsed = ackSchema.safeParse(decodeCbor(bytes));
  if (!parsed.success)
    throw new FieldloopError("message_schema", "Decode acknowledgement: not [[stream, boot, seq], …]");
  return parsed.data.map(([stream, boot, seq]) => ({ stream: STREAMS[stream]!, boot, seq }));
}
