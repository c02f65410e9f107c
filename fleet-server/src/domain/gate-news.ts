import type { GateVerdict } from "@fieldloop/protocol";

/**
 * Whether a look at a gate tells more than the one before it: it is the first since the wave is watched (from its start, its soak, a
 * resume or a retry on), the verdict is another, or other tests failed. A gate that waits for evidence is looked at as often as every
 * second; who is told of rollouts wants to hear that once.
 * @param before the wave's look before, where there is one
 * @param watchedSince milliseconds; what was seen before belongs to an earlier watch
 */
export function isNews(
  verdict: GateVerdict,
  before: GateVerdict | null,
  watchedSince: number | null,
): boolean {
  if (before === null || before.time <= (watchedSince ?? 0)) return true;
  return before.verdict !== verdict.verdict || failedTests(before) !== failedTests(verdict);
}

function failedTests({ tests }: GateVerdict): string {
  return tests
    .filter(({ verdict }) => verdict === "fail")
    .map(({ test }) => test)
    .sort()
    .join();
}
