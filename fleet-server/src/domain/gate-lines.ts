import type { ArmCounts, GateTest } from "@fieldloop/protocol";

export type Verdict = GateTest["verdict"];

/** What a line of a verdict is made from; everything not given is null. `logE` is the natural logarithm of the e-value. */
export interface LineParts {
  readonly value?: number | null;
  readonly limit?: number | null;
  readonly low?: number;
  readonly high?: number;
  readonly alpha?: number;
  readonly logE?: number;
  readonly canary?: ArmCounts;
  readonly control?: ArmCounts;
}

/** JSON has no infinity; beyond this an e-value says nothing more. */
const E_VALUE_MAX = 1e300;

export function line(test: string, verdict: Verdict, detail: string, parts: LineParts = {}): GateTest {
  const { value = null, limit = null, low, high, alpha, logE, canary = null, control = null } = parts;
  return {
    test,
    verdict,
    value: finite(value),
    limit,
    low: finite(low),
    high: finite(high),
    confidence: alpha === undefined ? null : 1 - alpha,
    eValue: logE === undefined ? null : Math.min(Math.exp(logE), E_VALUE_MAX),
    canary,
    control,
    detail,
  };
}

function finite(value: number | null | undefined): number | null {
  return value === null || value === undefined || !Number.isFinite(value) ? null : value;
}

/** Evidence at which a test has spent its error. */
export function proves(logE: number, alpha: number): boolean {
  return logE >= -Math.log(alpha);
}

/** "1,234". */
export function count(value: number): string {
  return String(Math.round(value)).replaceAll(/\B(?=(\d{3})+$)/g, ",");
}

/** "1 device", "1,234 devices". */
export function devices(value: number): string {
  return `${count(value)} device${value === 1 ? "" : "s"}`;
}

/** "4.2 %". */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** "2.5 points", signed. */
export function points(difference: number): string {
  return `${(100 * difference).toFixed(1)} points`;
}

/** A ratio or rate with two or three digits. */
export function digits(value: number): string {
  return value >= 100 ? count(value) : value.toPrecision(3).replace(/\.?0+$/, "");
}

/** "99.6 % confidence". */
export function confidence(alpha: number): string {
  return `${(100 * (1 - alpha)).toFixed(alpha < 0.001 ? 2 : 1)} % confidence`;
}
