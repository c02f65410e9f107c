import { Random } from "@fieldloop/runtime/simulate";

/** A seed from the environment, to see a failure again, or a new one; the caller prints it. */
export function testSeed(): number {
  const given = Number(process.env["FIELDLOOP_TEST_SEED"]);
  return Number.isSafeInteger(given) && given > 0 ? given : Math.floor(Math.random() * 1e9) + 1;
}

/** Independent numbers for one part of a test. */
export function randomOf(seed: number, part: number): Random {
  return new Random(seed, part);
}
