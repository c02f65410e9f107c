import type { Migration } from "./database.js";
import { AUTH_MIGRATION, TOKEN_PERSONS_MIGRATION } from "./auth.js";
import { DEPLOYMENTS_MIGRATION } from "./deployments.js";
import { DELTAS_MIGRATION } from "./deltas.js";
import { DESIRED_MIGRATION } from "./desired.js";
import { DEVICE_IDENTITY_MIGRATION, DEVICE_LANES_MIGRATION, DEVICES_MIGRATION } from "./devices.js";
import { EVENTS_MIGRATION } from "./events.js";
import { IDEMPOTENCY_MIGRATION, IDEMPOTENCY_SEALED_MIGRATION } from "./idempotency.js";
import { LABELS_MIGRATION } from "./labels.js";
import { LOOP_MIGRATIONS } from "./loop-migrations.js";
import {
  ROLLOUT_CREATOR_MIGRATION,
  ROLLOUT_ENGINE_MIGRATION,
  ROLLOUT_SUPERSEDER_MIGRATION,
} from "./rollouts.js";
import { SAMPLES_MIGRATION } from "./samples.js";
import { SHADOW_MIGRATION } from "./shadow.js";
import { TELEMETRY_MIGRATION } from "./telemetry.js";
import { REGISTRY_TRUST_MIGRATION, TRUST_MIGRATION } from "./trust.js";
import { WEBHOOK_SECRETS_MIGRATION, WEBHOOKS_MIGRATION } from "./webhooks.js";

/** Every migration in the order in which it is applied; those of an area live beside its store. Append only. */
export const MIGRATIONS: readonly Migration[] = [
  IDEMPOTENCY_MIGRATION,
  LABELS_MIGRATION,
  DEVICES_MIGRATION,
  DEPLOYMENTS_MIGRATION,
  DESIRED_MIGRATION,
  TELEMETRY_MIGRATION,
  SAMPLES_MIGRATION,
  AUTH_MIGRATION,
  EVENTS_MIGRATION,
  ...LOOP_MIGRATIONS,
  DEVICE_LANES_MIGRATION,
  TRUST_MIGRATION,
  REGISTRY_TRUST_MIGRATION,
  ROLLOUT_ENGINE_MIGRATION,
  SHADOW_MIGRATION,
  DEVICE_IDENTITY_MIGRATION,
  WEBHOOKS_MIGRATION,
  DELTAS_MIGRATION,
  WEBHOOK_SECRETS_MIGRATION,
  IDEMPOTENCY_SEALED_MIGRATION,
  TOKEN_PERSONS_MIGRATION,
  ROLLOUT_CREATOR_MIGRATION,
  ROLLOUT_SUPERSEDER_MIGRATION,
];
