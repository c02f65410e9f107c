import type { TestSpecification } from "vitest/node";
import { BaseSequencer } from "vitest/node";

/** Files that take longest, the longest first. Left to the end, one of them keeps one of two workers waiting for a minute. */
const LONGEST = [
  "test/dist/e2e/kill.test.js",
  "test/dist/hostile/bad-input.test.js",
  "test/dist/e2e/package.test.js",
  "test/dist/contract/browser.test.js",
  "test/dist/console/console.test.js",
  "device-agent/dist/control/shadow/shadow.test.js",
  "device-agent/dist/control/lanes.test.js",
  "device-agent/dist/control/agent.test.js",
  "device-agent/dist/control/local-inference.test.js",
  "test/dist/hostile/attacks.test.js",
  "test/dist/conformance/tuf.test.js",
  "device-agent/dist/control/lane-host.test.js",
  "fleet-server/dist/loop.test.js",
  "device-agent/dist/control/lane-providers.test.js",
  "test/dist/faults/power-cut.test.js",
  "runtime/dist/node/providers.test.js",
  "runtime/dist/node/bad-models.test.js",
];

/** Order of the test files: a fresh clone has no times of a run before to go by, as vitest has them. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = LONGEST.findIndex((file) => moduleId.endsWith(`/${file}`));
      return at < 0 ? LONGEST.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}
