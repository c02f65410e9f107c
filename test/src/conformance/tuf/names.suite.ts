import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { expect } from "vitest";
import type { TufCase } from "../../kit/tuf-stage.js";

const ROLES = ["?", "#", "/delegatedrole", "../delegatedrole"];

export const NAMES: readonly TufCase[] = [
  ...ROLES.map(
    (role): TufCase => ({
      name: `escapes the role "${role}" in addresses and file names`,
      outside: `test_unusual_role_name[${role}]`,
      ...(role.startsWith("..") ? { program: true as const } : {}),
      run: async (stage) => {
        const { repository } = stage;
        repository.delegate("targets", role);
        repository.publishTargets(role);
        await stage.starts();
        const around = readdirSync(dirname(stage.metadataDir));
        await stage.refusesTarget("nowhere", "trust_target_unknown");
        expect(stage.lastAsked()).toEqual([encodeURIComponent(role), 1]);
        expect(stage.trusted()).toEqual({
          root: 1,
          timestamp: 2,
          snapshot: 2,
          targets: 2,
          [encodeURIComponent(role)]: 1,
        });
        expect(readdirSync(dirname(stage.metadataDir))).toEqual(around);
      },
    }),
  ),
  {
    name: "lets no target leave its folder",
    run: async (stage) => {
      const { repository } = stage;
      const paths = ["../outside", "a/../../outside", "/outside", "..", ".", "a//b"];
      for (const path of paths) repository.addTarget("targets", path, "content");
      repository.addTarget("targets", "what? #1 100%", "odd");
      repository.publishTargets();
      await stage.starts();
      const around = readdirSync(dirname(stage.metadataDir));
      for (const path of paths) await stage.refusesTarget(path, "trust_target_unknown");
      await stage.downloads("what? #1 100%");
      expect(stage.downloaded()).toEqual(["odd"]);
      expect(readdirSync(dirname(stage.metadataDir))).toEqual(around);
    },
  },
];
