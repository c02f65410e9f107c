import { Random } from "@fieldloop/runtime/simulate";

const FIXED_SEED = 20_261_128;

/** A seed from the environment, to see a failure again, or a new one; the caller prints it. */
export function testSeed(): number {
  return givenSeed() ?? newSeed();
}

/** Of properties over generated cases: the same in every run, unless the environment gives another. A change is not judged by luck. */
export function propertySeed(): number {
  return givenSeed() ?? FIXED_SEED;
}

export function newSeed(): number {
  return Math.floor(Math.random() * 1e9) + 1;
}

function givenSeed(): number | undefined {
  const given = Number(process.env["FIELDLOOP_TEST_SEED"]);
  return Number.isSafeInteger(given) && given > 0 ? given : undefined;
}

/** Independent numbers for one part of a test. */
export function randomOf(seed: number, part: number): Random {
  return new Random(seed, part);
}
