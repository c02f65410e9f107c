import { z } from "zod";
import { countSchema, timeSchema } from "../names.js";

/** Types of the CloudEvents that a webhook may ask for. */
export const WEBHOOK_EVENT_TYPES = [
  "io.fieldloop.rollout.created",
  "io.fieldloop.rollout.state",
  "io.fieldloop.rollout.wave",
  "io.fieldloop.rollout.verdict",
  "io.fieldloop.rollout.action",
  "io.fieldloop.rollout.devices",
] as const;
export type WebhookEventType = (typeof WEBHOOK_EVENT_TYPES)[number];
/** Sent when somebody asks for a test; no webhook can leave it out. */
export const WEBHOOK_PING_TYPE = "io.fieldloop.webhook.ping";
const deliveredTypeSchema = z.enum([...WEBHOOK_EVENT_TYPES, WEBHOOK_PING_TYPE]);
export type DeliveredType = z.output<typeof deliveredTypeSchema>;

export const webhookRequestSchema = z.object({
  /** `https://…`; `http://` and private addresses only where the server allows them. */
  url: z.url({ protocol: /^https?$/ }).max(2000),
  /** Empty: all of them. */
  events: z.array(z.enum(WEBHOOK_EVENT_TYPES)).max(WEBHOOK_EVENT_TYPES.length).default([]),
  description: z.string().max(200).default(""),
  enabled: z.boolean().default(true),
});
export type WebhookRequest = z.output<typeof webhookRequestSchema>;

/** What is left out stays as it is. */
export const webhookChangeSchema = z.object({
  url: webhookRequestSchema.shape.url.optional(),
  events: z.array(z.enum(WEBHOOK_EVENT_TYPES)).max(WEBHOOK_EVENT_TYPES.length).optional(),
  description: z.string().max(200).optional(),
  enabled: z.boolean().optional(),
  /** A new secret, shown in the answer. `overlap`: the old one signs beside it for a day; `at_once`: no longer. */
  rotateSecret: z.enum(["overlap", "at_once"]).optional(),
});
export type WebhookChange = z.output<typeof webhookChangeSchema>;

export const webhookSchema = webhookRequestSchema.extend({
  webhook: z.string(),
  created: timeSchema,
  createdBy: z.string(),
  /** The key of the signature header; shown once, when it is made or replaced. */
  secret: z.string().optional(),
  /** Until then the secret of before signs too; null where none does. */
  previousSecretUntil: timeSchema.nullable(),
  /** Deliveries that wait, and those given up. */
  pending: countSchema,
  dead: countSchema,
});
export type Webhook = z.output<typeof webhookSchema>;

export const webhookDeliverySchema = z.object({
  /** The `webhook-id` header: the same at every attempt. */
  delivery: z.string(),
  webhook: z.string(),
  type: deliveredTypeSchema,
  subject: z.string(),
  created: timeSchema,
  state: z.enum(["pending", "delivered", "dead"]),
  attempts: countSchema,
  nextAttempt: timeSchema.nullable(),
  finished: timeSchema.nullable(),
  status: z.int().nullable(),
  error: z.string().nullable(),
});
export type WebhookDelivery = z.output<typeof webhookDeliverySchema>;

/** A CloudEvent 1.0 in structured JSON mode (`application/cloudevents+json`), as it is posted. */
export const cloudEventSchema = z.object({
  specversion: z.literal("1.0"),
  id: z.string(),
  source: z.string(),
  type: deliveredTypeSchema,
  subject: z.string(),
  time: z.string(),
  datacontenttype: z.literal("application/json"),
  data: z.record(z.string(), z.unknown()),
});
export type CloudEvent = z.output<typeof cloudEventSchema>;
