import type { TestSpecification } from "vitest/node";
import { BaseSequencer } from "vitest/node";
import { isDriverCompiling, wantsDriver } from "./driver.js";

/** Files that take more than ten seconds, the longest first: left to the end, one of them has the other workers wait for it. */
const LONGEST = [
  "test/dist/hostile/bad-input.test.js",
  "test/dist/console/console.test.js",
  "test/dist/contract/browser.test.js",
  "test/dist/faults/kill-points.test.js",
  "test/dist/e2e/kill.test.js",
  "test/dist/hostile/attacks.test.js",
  "test/dist/faults/power-cut.test.js",
  "test/dist/e2e/package.test.js",
  "device-agent/dist/control/shadow/shadow.test.js",
  "device-agent/dist/control/lane-host.test.js",
  "device-agent/dist/control/lanes.test.js",
  "device-agent/dist/control/agent.test.js",
  "test/dist/conformance/tuf.test.js",
  "test/dist/e2e/heavy-lane.test.js",
  "test/dist/e2e/models.test.js",
  "runtime/dist/node/public-models.test.js",
  "fleet-server/dist/loop.test.js",
  "test/dist/e2e/delta.test.js",
  "test/dist/e2e/pipeline.test.js",
  "fleet-server/dist/loop-http.test.js",
  "device-agent/dist/control/lane-providers.test.js",
  "runtime/dist/node/conformance.test.js",
  "test/dist/console/webhooks.test.js",
  "test/dist/hostile/broker-guard.test.js",
  "fleet-server/dist/trust/kill.test.js",
  "fleet-server/dist/deltas.test.js",
  "test/dist/faults/power-cut-update.test.js",
  "device-agent/dist/control/local-inference.test.js",
  "test/dist/e2e/lanes.test.js",
  "test/dist/hostile/one-identity.test.js",
  "models/dist/parts/parts.test.js",
  "fleet-server/dist/training/train-job.test.js",
  "device-agent/dist/control/shadow/shadow-lanes.test.js",
  "fleet-server/dist/store/stores.contract.test.js",
  "runtime/dist/node/bad-models.test.js",
  "runtime/dist/node/providers.test.js",
  "test/dist/faults/faults.test.js",
  "device-agent/dist/control/updater.test.js",
  "test/dist/contract/webgpu.test.js",
  "test/dist/e2e/agent-build.test.js",
  "runtime/dist/node/worker.test.js",
  "runtime/dist/node/oip.test.js",
  "device-agent/dist/control/updater-ways.test.js",
  "device-agent/dist/control/contract-swap.test.js",
  "fleet-server/dist/trust/signers.test.js",
  "fleet-server/dist/store/database.contract.test.js",
];

/** Order of the test files: a fresh clone has no times of a run before to go by, as vitest has them. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    // What would wait for the SQLite driver comes behind the other long ones.
    const isCompiling = isDriverCompiling();
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = LONGEST.findIndex((file) => moduleId.endsWith(`/${file}`));
      if (at < 0) return 2 * LONGEST.length;
      return isCompiling && wantsDriver(moduleId) ? LONGEST.length + at : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}
