import { openModel, openPackage } from "@fieldloop/runtime/node";
import { labelsOf } from "../services/registry.js";
import { compareVersions, type Contender } from "./compare.js";
import type { EvaluateJob, EvaluationBody, Reporter } from "./job.js";
import { readDataFile, readItem, type Labelled } from "./rows.js";
import { deployedVariant } from "./variants.js";

const PROGRESS_EVERY = 50;

/** Two published versions on given samples and on the base's holdout, in the variants that devices run. */
export async function runEvaluateJob(job: EvaluateJob, reporter: Reporter): Promise<EvaluationBody> {
  const base = await openPackage(job.baseDir);
  const candidate = await openPackage(job.candidateDir);
  const field: Labelled[] = [];
  for (const item of job.items) field.push(await readItem(item));
  const contenders: (Contender & { release(): Promise<void> })[] = [];
  try {
    for (const pkg of [base, candidate]) {
      const variant = deployedVariant(pkg.manifest).name;
      const model = await openModel(pkg, { variant, threadCount: job.threadCount });
      const { manifest, session, baseline } = model;
      contenders.push({
        manifest,
        variant,
        session,
        ...(baseline ? { baseline } : {}),
        release: () => model.release(),
      });
    }
    return await compareVersions({
      labels: labelsOf(base.manifest),
      base: contenders[0]!,
      candidate: contenders[1]!,
      field,
      old: await readDataFile(base, "holdout"),
      onProgress: (done, of) => {
        if (done % PROGRESS_EVERY !== 0) return;
        reporter.progress({
          phase: "evaluating",
          step: done,
          steps: of,
          loss: null,
          message: `evaluating ${done} of ${of} inputs`,
        });
      },
    });
  } finally {
    for (const contender of contenders) await contender.release();
  }
}
