import type { DeliveredType, Webhook, WebhookDelivery, WebhookEventType } from "@fieldloop/protocol";
import type { Kind } from "./kinds.js";

/** What each type of event tells, in words; the keys are all types that can be asked for. */
export const EVENT_TEXT: Record<WebhookEventType, string> = {
  "io.fieldloop.rollout.created": "a rollout was planned",
  "io.fieldloop.rollout.state": "it started, paused or ended",
  "io.fieldloop.rollout.wave": "a wave began, passed or failed",
  "io.fieldloop.rollout.verdict": "a gate decided, with its numbers",
  "io.fieldloop.rollout.action": "a person acted",
  "io.fieldloop.rollout.devices": "devices failed, fell silent or joined",
};
export const EVENT_TYPES = Object.keys(EVENT_TEXT) as WebhookEventType[];

/** `rollout.state` of `io.fieldloop.rollout.state`. */
export function shortType(type: DeliveredType): string {
  return type.replace("io.fieldloop.", "");
}

export const DELIVERY_KIND: Record<WebhookDelivery["state"], Kind> = {
  pending: "busy",
  delivered: "ok",
  dead: "error",
};
export const DELIVERY_TEXT: Record<WebhookDelivery["state"], string> = {
  pending: "waiting",
  delivered: "delivered",
  dead: "given up",
};

/** How a webhook stands: switched off, with deliveries that were given up, with some that wait, or well. */
export function standing({ enabled, dead, pending }: Webhook): { kind: Kind; title: string } {
  if (!enabled) return { kind: "idle", title: "disabled" };
  if (dead > 0) return { kind: "error", title: `${dead} given up` };
  return pending > 0 ? { kind: "busy", title: `${pending} waiting` } : { kind: "ok", title: "enabled" };
}
