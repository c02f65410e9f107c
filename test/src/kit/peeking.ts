import {
  contrastEvidence,
  contrastOf,
  clipOutliers,
  differenceEvidence,
  findSilence,
  markedEvidence,
  meanOfDevices,
  overdispersion,
  pairedEvidence,
  rateEvidence,
  shareOfDevices,
} from "@fieldloop/fleet-server";
import type { Random } from "@fieldloop/runtime/simulate";
import { binomial, exponential, gamma, heavyTailed, logistic, normal, pareto, poisson } from "./draws.js";

/**
 * Two arms that do not differ, looked at every day for thirty days: how often does a test call them different? Each comparison that
 * a gate makes, beside the test for a sample of fixed size that is usually looked at in its place.
 */

export const LOOKS = 30;

export interface Look {
  /** ln of the e-value against "canary is no worse". */
  readonly logE: number;
  /** Of the usual test; a standard normal where observations are independent. */
  readonly z: number;
}

export interface PeekedComparison {
  readonly id: string;
  readonly what: string;
  /** Runs that take a second or less: what a test can afford. */
  readonly runs: number;
  /** Draws both arms, then gives what each day's look sees. */
  readonly begin: (random: Random) => () => Look;
}

interface Counts {
  successes: number;
  count: number;
}

/** Devices as they differ, and each as it drifts. */
interface Site {
  readonly logit: number;
  readonly logLatency: number;
  drift: number;
  before: { sum: number; weight: number };
  during: { sum: number; weight: number };
}

export const PEEKED: readonly PeekedComparison[] = [
  { id: "feedback", what: "accuracy, 20 judged a day and arm", runs: 600, begin: peekFeedback },
  {
    id: "feedback-devices",
    what: "accuracy, 30 devices against 60 that differ",
    runs: 150,
    begin: peekDevices,
  },
  {
    id: "latency-devices",
    what: "latency, 30 devices against 60 that differ, heavy tails",
    runs: 60,
    begin: peekLatency,
  },
  {
    id: "crash-rate",
    what: "crashes per hour, 100 devices against 300, some in loops",
    runs: 100,
    begin: peekCrashRate,
  },
  { id: "crashed-devices", what: "crashed devices, 100 against 300", runs: 200, begin: peekCrashedDevices },
  { id: "silence", what: "silent devices, 200 against 600 that come and go", runs: 80, begin: peekSilence },
  { id: "paired", what: "labelled disagreements, 10 a day", runs: 600, begin: peekPaired },
];

function peekFeedback(random: Random): () => Look {
  const arms: [Counts, Counts] = [
    { successes: 0, count: 0 },
    { successes: 0, count: 0 },
  ];
  return () => {
    for (const arm of arms) {
      arm.count += 20;
      arm.successes += binomial(random, 20, 0.95);
    }
    const [canary, control] = arms;
    return { logE: differenceEvidence(control, canary, 0, 0.05), z: pooledZ(control, canary) };
  };
}

function drawSites(random: Random, count: number): Site[] {
  return Array.from({ length: count }, () => ({
    logit: 2.9 + 0.8 * normal(random),
    logLatency: 2 + 0.8 * normal(random),
    drift: 0.3 * normal(random),
    before: { sum: 0, weight: 0 },
    during: { sum: 0, weight: 0 },
  }));
}

function peekDevices(random: Random): () => Look {
  const arms = [drawSites(random, 30), drawSites(random, 60)] as const;
  const judge = (site: Site, judged: number, drift: number): { sum: number; weight: number } => ({
    sum: judged - binomial(random, judged, logistic(site.logit + drift)),
    weight: judged,
  });
  for (const arm of arms) for (const site of arm) site.before = judge(site, 100, 0);
  return () => {
    for (const arm of arms) {
      for (const site of arm) {
        site.drift = 0.9 * site.drift + 0.1 * normal(random);
        const { sum, weight } = judge(site, poisson(random, 8), site.drift);
        site.during = { sum: site.during.sum + sum, weight: site.during.weight + weight };
      }
    }
    const contrast = contrastOf(shareOfDevices(arms[0]), shareOfDevices(arms[1]));
    const [canary, control] = arms.map((arm) => addUp(arm)) as [Counts, Counts];
    return { logE: contrastEvidence(contrast, 0, 0.05), z: pooledZ(canary, control) };
  };
}

function addUp(sites: readonly Site[]): Counts {
  return {
    successes: sites.reduce((sum, { during }) => sum + during.sum, 0),
    count: sites.reduce((sum, { during }) => sum + during.weight, 0),
  };
}

const FRAMES_PER_DAY = 200;

function peekLatency(random: Random): () => Look {
  const arms = [drawSites(random, 30), drawSites(random, 60)] as const;
  const meanMs = (site: Site, drift: number, frames: number): number => {
    let spikes = 0;
    for (let spike = poisson(random, 0.02 * frames); spike > 0; spike--) spikes += pareto(random, 1.8);
    const body = 1 + (0.4 * normal(random)) / Math.sqrt(frames);
    return Math.exp(site.logLatency + drift) * (Math.max(body, 0.2) + spikes / frames);
  };
  for (const arm of arms) {
    for (const site of arm) {
      site.before = { sum: meanMs(site, 0, FRAMES_PER_DAY) * FRAMES_PER_DAY, weight: FRAMES_PER_DAY };
    }
  }
  return () => {
    for (const arm of arms) {
      for (const site of arm) {
        site.drift = 0.9 * site.drift + 0.05 * heavyTailed(random);
        site.during.sum += meanMs(site, site.drift, FRAMES_PER_DAY) * FRAMES_PER_DAY;
        site.during.weight += FRAMES_PER_DAY;
      }
    }
    const change = ({ before, during }: Site): number =>
      Math.log(during.sum / during.weight / (before.sum / before.weight));
    const [canary, control] = clipOutliers(arms.map((arm) => arm.map(change)));
    const contrast = contrastOf(meanOfDevices(canary!), meanOfDevices(control!));
    return { logE: contrastEvidence(contrast, 0, Math.log(1.2)), z: framesZ(arms[0], arms[1]) };
  };
}

/** As if each frame were a witness of its own: means over frames, the spread between frames as between devices. */
function framesZ(canary: readonly Site[], control: readonly Site[]): number {
  const describe = (arm: readonly Site[]): { mean: number; error: number } => {
    const means = arm.map(({ during }) => during.sum / during.weight);
    const mean = means.reduce((sum, value) => sum + value, 0) / means.length;
    const variance = means.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (means.length - 1);
    const frames = arm.reduce((sum, { during }) => sum + during.weight, 0);
    return { mean, error: variance / frames };
  };
  const [first, second] = [describe(canary), describe(control)];
  return (first.mean - second.mean) / Math.sqrt(first.error + second.error);
}

function drawCrashers(random: Random, count: number): { rate: number; crashes: number }[] {
  return Array.from({ length: count }, () => ({
    rate: random.uniform() < 0.01 ? 3 : 0.03 * (gamma(random, 0.3) / 0.3),
    crashes: 0,
  }));
}

function peekCrashRate(random: Random): () => Look {
  const arms = [drawCrashers(random, 100), drawCrashers(random, 300)] as const;
  let days = 0;
  return () => {
    days++;
    for (const arm of arms) for (const device of arm) device.crashes += poisson(random, device.rate);
    const rates = arms.map((arm) => arm.map(({ crashes }) => ({ count: crashes, exposure: days })));
    const spread = overdispersion(rates.flat());
    const [canary, control] = rates.map((arm) => ({
      count: arm.reduce((sum, { count }) => sum + count, 0),
      exposure: arm.length * days,
    }));
    const thin = (rate: { count: number; exposure: number }) => ({ ...rate, count: rate.count / spread });
    return { logE: rateEvidence(thin(canary!), thin(control!), 1), z: poissonZ(canary!, control!) };
  };
}

type Rate = { readonly count: number; readonly exposure: number };

function poissonZ(first: Rate, second: Rate): number {
  const variance = first.count / first.exposure ** 2 + second.count / second.exposure ** 2;
  return variance > 0
    ? (first.count / first.exposure - second.count / second.exposure) / Math.sqrt(variance)
    : 0;
}

function peekCrashedDevices(random: Random): () => Look {
  const arms = [drawCrashers(random, 100), drawCrashers(random, 300)] as const;
  return () => {
    for (const arm of arms) for (const device of arm) device.crashes += poisson(random, device.rate);
    return compareMarked(
      arms.map((arm) => ({ marked: arm.filter(({ crashes }) => crashes > 0).length, devices: arm.length })),
    );
  };
}

function peekSilence(random: Random): () => Look {
  // Up for four days, down for half a day in the mean, some for a week; heard last when its gap began.
  const begin = (count: number): { up: boolean; until: number; lastHeard: number }[] =>
    Array.from({ length: count }, () => ({ up: true, until: exponential(random, 4), lastHeard: 0 }));
  const arms = [begin(200), begin(600)] as const;
  let day = 0;
  return () => {
    day++;
    for (const arm of arms) {
      for (const device of arm) {
        while (device.until < day) {
          if (device.up) device.lastHeard = device.until;
          device.up = !device.up;
          device.until += device.up ? exponential(random, 4) : 0.2 * Math.exp(1.3 * normal(random));
        }
        if (device.up) device.lastHeard = day;
      }
    }
    const [canary, control] = arms.map((arm) => arm.map(({ lastHeard }) => day - lastHeard));
    const now = arms.map((arm) => ({ marked: arm.filter(({ up }) => !up).length, devices: arm.length }));
    return { logE: findSilence(canary!, control!, day, 1).logE, z: compareMarked(now).z };
  };
}

function compareMarked(arms: readonly { readonly marked: number; readonly devices: number }[]): Look {
  const [canary, control] = arms as [(typeof arms)[number], (typeof arms)[number]];
  return {
    logE: markedEvidence({ canary, control }),
    z: pooledZ(
      { successes: canary.marked, count: canary.devices },
      { successes: control.marked, count: control.devices },
    ),
  };
}

function peekPaired(random: Random): () => Look {
  let onlyFirstRight = 0;
  let labels = 0;
  return () => {
    labels += 10;
    onlyFirstRight += binomial(random, 10, 0.5);
    const onlySecondRight = labels - onlyFirstRight;
    return {
      logE: pairedEvidence({ onlyFirstRight, onlySecondRight, neither: 0 }),
      z: (onlyFirstRight - onlySecondRight) / Math.sqrt(labels),
    };
  };
}

/** The z-test of two shares, with their pooled variance. */
export function pooledZ(first: Counts, second: Counts): number {
  const share = (first.successes + second.successes) / (first.count + second.count);
  const variance = share * (1 - share) * (1 / first.count + 1 / second.count);
  return variance > 0
    ? (first.successes / first.count - second.successes / second.count) / Math.sqrt(variance)
    : 0;
}

/** One-sided 5 % of a standard normal. */
export const Z_ONE_SIDED = 1.6448536269514722;

/** Whether the e-process stopped at any look, the usual test at any, and the usual test at the last. */
export function peek(
  comparison: PeekedComparison,
  random: Random,
  alpha: number,
): { ours: boolean; usual: boolean; once: boolean } {
  const look = comparison.begin(random);
  let ours = false;
  let usual = false;
  let once = false;
  for (let day = 1; day <= LOOKS; day++) {
    const { logE, z } = look();
    ours ||= logE >= -Math.log(alpha);
    once = z > Z_ONE_SIDED;
    usual ||= once;
  }
  return { ours, usual, once };
}
