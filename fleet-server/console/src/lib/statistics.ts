import type { Proportion, Stratum } from "@fieldloop/protocol";

/** `GET /failures/statistics`: what is known about the samples of each stratum. */
export interface FailureStatistics {
  strata: {
    stratum: Stratum;
    samples: number;
    /** Wrong among those with a label or feedback. */
    errorShare: Proportion;
  }[];
}
