import type { ErrorCode, Evaluation, MediaType, TrainingSettings } from "@fieldloop/protocol";

/** What the server and its trainer process say to each other, as JSON over the process channel. */

/** One labelled input of a snapshot, its payload in a file of the job's folder. */
export interface JobItem {
  readonly sample: string;
  readonly label: string;
  readonly media: MediaType;
  readonly file: string;
}

export interface TrainJob {
  readonly kind: "train";
  readonly run: string;
  /** Folder of the base package; its files were checked when they were laid out. */
  readonly baseDir: string;
  /** Where the candidate package goes; must not exist. */
  readonly outDir: string;
  readonly checkpointFile: string;
  readonly version: number;
  /** `manifest.created` of the candidate, so that a resumed run makes the same bytes. */
  readonly created: string;
  readonly snapshot: string;
  readonly items: readonly JobItem[];
  readonly settings: TrainingSettings;
  readonly threadCount: number;
}

export interface EvaluateJob {
  readonly kind: "evaluate";
  readonly baseDir: string;
  readonly candidateDir: string;
  readonly items: readonly JobItem[];
  readonly threadCount: number;
}

export type Job = TrainJob | EvaluateJob;

export type ParentMessage = { readonly kind: "start"; readonly job: Job } | { readonly kind: "cancel" };

/** An evaluation but for its identity, which the server gives. */
export type EvaluationBody = Omit<Evaluation, "evaluation" | "run" | "created">;

export const PHASES = ["preparing", "training", "packaging", "evaluating"] as const;
export type Phase = (typeof PHASES)[number];

export interface ProgressMessage {
  readonly kind: "progress";
  readonly phase: Phase;
  readonly step: number;
  readonly steps: number;
  readonly loss: number | null;
  readonly message: string;
  readonly rssBytes: number;
}

export type TrainerMessage =
  | ProgressMessage
  | { readonly kind: "done"; readonly evaluation: EvaluationBody }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly message: string };

/** What the work inside the trainer process reports with. */
export interface Reporter {
  progress(message: Omit<ProgressMessage, "kind" | "rssBytes">): void;
}
