import { AUDIT_MIGRATION } from "./audit.js";
import type { Migration } from "./database.js";
import { DATASETS_MIGRATION } from "./datasets.js";
import { EVALUATIONS_MIGRATION } from "./evaluations.js";
import { REGISTRY_MIGRATION } from "./registry.js";
import { ROLLOUTS_MIGRATION } from "./rollouts.js";
import { ANNOTATIONS_MIGRATION } from "./samples-annotations.js";
import { TRAINING_MIGRATION } from "./training.js";

/** Migrations of the improvement loop; they follow those of ingest, whose samples and feedback they refer to. */
export const LOOP_MIGRATIONS: readonly Migration[] = [
  AUDIT_MIGRATION,
  REGISTRY_MIGRATION,
  ROLLOUTS_MIGRATION,
  EVALUATIONS_MIGRATION,
  ANNOTATIONS_MIGRATION,
  DATASETS_MIGRATION,
  TRAINING_MIGRATION,
];
