import { Inflate, deflateSync } from "fflate";
import { z } from "zod";
import { decodeCbor, encodeCbor } from "./cbor.js";
import { FieldloopError } from "./errors.js";
import { LIMITS } from "./limits.js";
import { MEDIA_TYPES } from "./messages/sample.js";
import { labelSchema } from "./names.js";

/**
 * A data file of a package (`replay`, `holdout`): labelled inputs as they came from the source, so that a trainer can
 * prepare them for any version. Format `fieldloop-samples-1`: CBOR `{ items: [{ media, label, payload }] }`, then raw
 * DEFLATE (RFC 1951), which takes out the header that all small JPEG files of one encoder share.
 */
const dataItemSchema = z.object({
  media: z.enum(MEDIA_TYPES),
  label: labelSchema,
  payload: z.instanceof(Uint8Array).refine((bytes) => bytes.length <= LIMITS.sampleBytesMax),
});
const dataFileContentSchema = z.object({ items: z.array(dataItemSchema).max(LIMITS.dataFileItemsMax) });

/** One labelled input; a window's payload is float32 little-endian. */
export type DataItem = z.output<typeof dataItemSchema>;

export function encodeDataFile(items: readonly DataItem[]): Uint8Array {
  const content = items.map(({ media, label, payload }) => ({ media, label, payload }));
  return deflateSync(encodeCbor({ items: content }), { level: 9 });
}

/** @throws FieldloopError `data_file_malformed`, `limit_exceeded`, or a `cbor_*` code */
export function decodeDataFile(bytes: Uint8Array): DataItem[] {
  const parsed = dataFileContentSchema.safeParse(
    decodeCbor(inflate(bytes), {
      depthMax: LIMITS.cborDepthMax,
      itemsMax: LIMITS.dataFileItemsMax * 8,
    }),
  );
  if (parsed.success) return parsed.data.items;
  const issue = parsed.error.issues[0]!;
  throw new FieldloopError(
    "data_file_malformed",
    `Read data file: ${issue.path.join(".")}: ${issue.message}`,
    {
      cause: parsed.error,
    },
  );
}

/** Inflates piece by piece, so that a small file that claims to be a huge one is found out before it is held. */
function inflate(bytes: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  let total = 0;
  let finished = false;
  const stream = new Inflate((part, final) => {
    total += part.length;
    if (total > LIMITS.dataFileBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Read data file: more than ${LIMITS.dataFileBytesMax} bytes when inflated`,
      );
    }
    parts.push(part);
    finished = final;
  });
  try {
    const step = 4 * 1024;
    for (let at = 0; at < bytes.length; at += step) {
      stream.push(bytes.subarray(at, at + step), at + step >= bytes.length);
    }
  } catch (cause) {
    if (cause instanceof FieldloopError) throw cause;
    throw new FieldloopError("data_file_malformed", "Read data file: it does not inflate", { cause });
  }
  if (!finished) throw new FieldloopError("data_file_malformed", "Read data file: it ends too early");
  const whole = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
