import { TufServer } from "@fieldloop/device-agent/testing/tuf-server";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asProgram, inProcess, TufStage, type Driver, type TufCase } from "../kit/tuf-stage.js";
import { BASIC } from "./tuf/basic.suite.js";
import { DELEGATIONS } from "./tuf/delegations.suite.js";
import { DOWNLOAD } from "./tuf/download.suite.js";
import { EXPIRY } from "./tuf/expiry.suite.js";
import { KEYS } from "./tuf/keys.suite.js";
import { NAMES } from "./tuf/names.suite.js";
import { ROLLBACK } from "./tuf/rollback.suite.js";
import { ROTATION } from "./tuf/rotation.suite.js";

/**
 * The case list of the tuf-conformance suite, written anew from what it asks for, through `fieldloop tuf-client`: exit code, what is
 * trusted, what is downloaded, what was asked for. Every case runs by the function that the program calls; a few of each kind run as the
 * program itself.
 */
const GROUPS: Readonly<Record<string, readonly TufCase[]>> = {
  basic: BASIC,
  expiry: EXPIRY,
  download: DOWNLOAD,
  keys: KEYS,
  "names of roles": NAMES,
  rollback: ROLLBACK,
  delegations: DELEGATIONS,
  rotation: ROTATION,
};
const ALL = Object.values(GROUPS).flat();

const server = new TufServer();
beforeAll(() => server.start());
afterAll(() => server.stop());

async function runCase({ run }: TufCase, driver: Driver): Promise<void> {
  const stage = new TufStage(server, driver);
  try {
    await run(stage);
  } finally {
    stage.remove();
  }
}

describe("TUF client", () => {
  it("has the whole case list", () => {
    const groups = Object.entries(GROUPS).map(([name, cases]) => `${name} ${cases.length}`);
    const outside = ALL.filter((each) => each.outside !== undefined);
    expect(new Set(outside.map((each) => each.outside)).size).toBe(outside.length);
    expect(outside.length).toBeGreaterThanOrEqual(100);
    process.stdout.write(
      `TUF cases: ${ALL.length} (${groups.join(", ")}), ${outside.length} of them of the tuf-conformance suite\n`,
    );
  });

  for (const [group, cases] of Object.entries(GROUPS)) {
    describe(group, () => {
      it.each(cases.map((each) => [each.name, each] as const))("%s", (_name, each) =>
        runCase(each, inProcess),
      );
    });
  }
});

describe("TUF client as a program", () => {
  const cases = ALL.filter((each) => each.program);
  it.each(cases.map((each) => [each.name, each] as const))(
    "%s",
    (_name, each) => runCase(each, asProgram),
    60_000,
  );
});
