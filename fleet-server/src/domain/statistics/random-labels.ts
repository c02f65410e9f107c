import { logMixture } from "./binomial-mixture.js";
import { logGamma } from "./special.js";

/** Marked devices of two arms, e.g. those that crashed. */
export interface Marked {
  readonly canary: { readonly marked: number; readonly devices: number };
  readonly control: { readonly marked: number; readonly devices: number };
}

/**
 * ln of the e-process against "being canary does not matter": which devices are canary was drawn at random, so whatever marks a
 * device under that hypothesis (however different devices are, however they depend on each other) the marked ones are draws
 * without replacement from all, and each bets on its arm (Waudby-Smith and Ramdas 2020; safe logrank test: Grünwald, Ly,
 * Pérez-Ortiz and ter Schure 2021). One-sided: more marked canaries than their share.
 *
 * Valid at all looks where marks are never taken back, and where they only are (the same process, read backwards in time).
 */
export function markedEvidence({ canary, control }: Marked): number {
  const all = canary.devices + control.devices;
  if (canary.devices <= 0 || control.devices <= 0) return 0;
  const drawn =
    logFalling(canary.devices, canary.marked) +
    logFalling(control.devices, control.marked) -
    logFalling(all, canary.marked + control.marked);
  return logMixture(canary.marked, control.marked, canary.devices / all) - drawn;
}

/** ln of n (n - 1) … (n - k + 1). */
function logFalling(n: number, k: number): number {
  return logGamma(n + 1) - logGamma(n - k + 1);
}
