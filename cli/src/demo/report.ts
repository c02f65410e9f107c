/** What `--json FILE` holds: every figure measured by the server, the devices or the broker while the demo ran. */
export interface DemoReport {
  readonly closed: boolean;
  /** Why the loop did not close; empty when it did. */
  readonly unmet: readonly string[];
  readonly devices: number;
  /** Share of right predictions by feedback, on the two cameras whose light changed. */
  readonly fieldAccuracy: {
    readonly healthy: number;
    readonly degraded: number;
    readonly recovered: number;
    readonly judged: { readonly healthy: number; readonly degraded: number; readonly recovered: number };
  };
  /** Accuracy on the holdout that travels with the base version. */
  readonly oldDataAccuracy: { readonly before: number; readonly after: number };
  /** Accuracy on labelled field samples kept out of training. */
  readonly newDataAccuracy: { readonly before: number; readonly after: number; readonly count: number };
  /** Share of real errors among the samples chosen for worth, and among the random ones beside them. */
  readonly failurePrecision: number;
  readonly randomErrorShare: number;
  readonly samplesUploaded: number;
  readonly labels: number;
  readonly version: { readonly from: number; readonly to: number };
  readonly rollout: string;
  /** Frames that candidate and running version both answered before the candidate served anything. */
  readonly shadow: { readonly compared: number; readonly disagreements: number };
  readonly predictions: { readonly made: number; readonly stored: number; readonly lost: number };
  readonly bytesPerPrediction: number;
  readonly framesDroppedDuringSwap: number;
  readonly swapGapMs: number;
  readonly firstPredictionS: number;
  readonly trainingS: number;
  readonly durationS: number;
}

export const DEMO_BARS = {
  degradedBelowHealthy: 0.15,
  recoveredWithin: 0.03,
  oldDataWorseAtMost: 0.01,
  failurePrecisionAtLeast: 0.6,
  bytesPerPredictionAtMost: 12,
} as const;

/** What stands between these figures and a closed loop, one line each. */
export function unmetBars(report: Omit<DemoReport, "closed" | "unmet">): string[] {
  const { healthy, degraded, recovered } = report.fieldAccuracy;
  const checks: [boolean, string][] = [
    [
      healthy - degraded >= DEMO_BARS.degradedBelowHealthy,
      `degraded accuracy is only ${points(healthy - degraded)} points below healthy`,
    ],
    [
      recovered >= healthy - DEMO_BARS.recoveredWithin,
      `recovered accuracy is ${points(healthy - recovered)} points below healthy`,
    ],
    [
      report.oldDataAccuracy.after >= report.oldDataAccuracy.before - DEMO_BARS.oldDataWorseAtMost,
      "the new version is more than 1 point worse on old data",
    ],
    [
      report.failurePrecision >= DEMO_BARS.failurePrecisionAtLeast,
      `only ${points(report.failurePrecision)} % of the samples chosen for worth were errors`,
    ],
    [
      report.failurePrecision > report.randomErrorShare,
      "choosing for worth found no more errors than chance",
    ],
    [report.shadow.compared > 0, "the candidate was never compared in shadow"],
    [report.rollout === "succeeded", `the rollout is "${report.rollout}"`],
    [
      report.predictions.made > 0 && report.predictions.lost === 0,
      `${report.predictions.lost} predictions were lost`,
    ],
    [
      report.bytesPerPrediction <= DEMO_BARS.bytesPerPredictionAtMost,
      `a prediction took ${report.bytesPerPrediction} bytes on the wire`,
    ],
    [
      report.framesDroppedDuringSwap === 0,
      `${report.framesDroppedDuringSwap} frames were dropped during the swap`,
    ],
  ];
  // A figure that is NaN meets no bar.
  return checks.filter(([met]) => !met).map(([, reason]) => reason);
}

function points(share: number): string {
  return (share * 100).toFixed(1);
}
