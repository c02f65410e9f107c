import { z } from "zod";
import { timeSchema } from "../names.js";
import { bootSchema } from "./delivery.js";

/** `up/presence`: retained, and the last will with `online: false`. */
export const presenceSchema = z.object({
  online: z.boolean(),
  boot: bootSchema,
  agentVersion: z.string().max(32),
  /** Drawn anew at each start of an agent: two agents with a copy of one identity have the same boot, but not this. */
  instance: z
    .string()
    .regex(/^[0-9a-f]{16}$/)
    .optional(),
  /** Absent in a last will, which was written when the connection began. */
  time: timeSchema.optional(),
});
export type Presence = z.output<typeof presenceSchema>;
