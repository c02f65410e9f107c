import { z } from "zod";
import { decodeCbor, encodeCbor, type CborValue } from "../cbor.js";
import { FieldloopError } from "../errors.js";
import { LIMITS } from "../limits.js";
import { commandSchema, desiredSchema } from "./desired.js";
import { eventSchema } from "./event.js";
import { presenceSchema } from "./presence.js";
import { profileSchema } from "./profile.js";
import { sampleSchema } from "./sample.js";
import { stateSchema } from "./state.js";

/** The messages that are CBOR maps of one schema; predictions and acknowledgements have compact forms of their own. */
export const MESSAGES = {
  presence: { schema: presenceSchema, bytesMax: LIMITS.presenceBytesMax },
  state: { schema: stateSchema, bytesMax: LIMITS.stateBytesMax },
  profile: { schema: profileSchema, bytesMax: LIMITS.profileBytesMax },
  sample: { schema: sampleSchema, bytesMax: LIMITS.samplePartBytesMax + LIMITS.sampleMetadataBytesMax },
  event: { schema: eventSchema, bytesMax: LIMITS.eventBytesMax },
  desired: { schema: desiredSchema, bytesMax: LIMITS.desiredBytesMax },
  command: { schema: commandSchema, bytesMax: LIMITS.commandBytesMax },
} as const;
export type MessageName = keyof typeof MESSAGES;
export type Message<Name extends MessageName> = z.output<(typeof MESSAGES)[Name]["schema"]>;

/** @throws FieldloopError `message_schema` or `message_too_large` where the value is not sendable: a bug of the sender, found before it travels */
export function encodeMessage<Name extends MessageName>(
  name: Name,
  message: z.input<(typeof MESSAGES)[Name]["schema"]>,
): Uint8Array {
  const { schema, bytesMax } = MESSAGES[name];
  const parsed = schema.safeParse(message);
  if (!parsed.success) throw schemaError("Encode", name, parsed.error);
  const bytes = encodeCbor(parsed.data as CborValue);
  if (bytes.length > bytesMax) throw tooLarge("Encode", name, bytes.length, bytesMax);
  return bytes;
}

/** @throws FieldloopError `message_too_large`, a `cbor_*` code or `message_schema`, never anything else */
export function decodeMessage<Name extends MessageName>(name: Name, bytes: Uint8Array): Message<Name> {
  const { schema, bytesMax } = MESSAGES[name];
  if (bytes.length > bytesMax) throw tooLarge("Decode", name, bytes.length, bytesMax);
  const parsed = schema.safeParse(decodeCbor(bytes));
  if (!parsed.success) throw schemaError("Decode", name, parsed.error);
  return parsed.data as Message<Name>;
}

function schemaError(action: string, name: string, error: z.ZodError): FieldloopError {
  return new FieldloopError("message_schema", `${action} ${name}: ${z.prettifyError(error).slice(0, 400)}`);
}

function tooLarge(action: string, name: string, bytes: number, bytesMax: number): FieldloopError {
  return new FieldloopError("message_too_large", `${action} ${name}: ${bytes} bytes, at most ${bytesMax}`);
}
