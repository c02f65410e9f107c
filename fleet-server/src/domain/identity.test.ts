import { describe, expect, it } from "vitest";
import { active, CONFLICT_QUIET_MS, conflictWarning, judgePresence, type KnownAgent } from "./identity.js";

const A = "a".repeat(16);
const B = "b".repeat(16);
const NOW = 1_000_000_000;
const known = (change: Partial<KnownAgent> = {}): KnownAgent => ({
  boot: 5,
  instance: A,
  conflict: null,
  ...change,
});

describe("identity", () => {
  it("finds nothing odd in connections and starts of one agent", () => {
    expect(judgePresence(known(), { online: true, boot: 5, instance: A }, NOW)).toBeUndefined();
    expect(judgePresence(known(), { online: false, boot: 4, instance: B }, NOW)).toBeUndefined();
    expect(judgePresence(known(), { online: false, boot: 5, instance: B }, NOW)).toBeUndefined();
    expect(judgePresence(known(), { online: true, boot: 6, instance: B }, NOW)).toEqual(
      known({ boot: 6, instance: B }),
    );
    expect(judgePresence(known({ boot: 0, instance: null }), { online: true, boot: 1 }, NOW)).toEqual(
      known({ boot: 1, instance: null }),
    );
    // An agent that did not tell yet was updated in between.
    expect(judgePresence(known({ instance: null }), { online: true, boot: 5, instance: A }, NOW)).toEqual(
      known(),
    );
  });

  it("finds two agents that started from one copy, boot for boot", () => {
    const second = judgePresence(known(), { online: true, boot: 5, instance: B }, NOW)!;
    expect(second).toEqual({ boot: 5, instance: B, conflict: { since: NOW, seen: NOW, sharedBoot: 5 } });
    const third = judgePresence(second, { online: true, boot: 5, instance: A }, NOW + 7)!;
    expect(third.conflict).toEqual({ since: NOW, seen: NOW + 7, sharedBoot: 5 });
    expect(conflictWarning(third.conflict!)).toMatchObject({
      code: "identity_conflict",
      severity: "error",
      since: NOW,
    });
  });

  it("finds an old copy that comes to life beside a newer boot", () => {
    const found = judgePresence(known(), { online: true, boot: 3, instance: B }, NOW)!;
    expect(found).toEqual({ boot: 5, instance: A, conflict: { since: NOW, seen: NOW, sharedBoot: null } });
  });

  it("remembers a shared boot when one of the two starts again, and forgets it after a quiet while", () => {
    const conflict = { since: NOW, seen: NOW, sharedBoot: 5 };
    const restarted = judgePresence(known({ conflict }), { online: true, boot: 6, instance: B }, NOW + 1)!;
    expect(restarted).toEqual({ boot: 6, instance: B, conflict });
    const older = judgePresence(restarted, { online: true, boot: 5, instance: A }, NOW + 2)!;
    expect(older.conflict).toEqual({ since: NOW, seen: NOW + 2, sharedBoot: 5 });
    expect(active(conflict, NOW + CONFLICT_QUIET_MS - 1)).toBe(conflict);
    expect(active(conflict, NOW + CONFLICT_QUIET_MS)).toBeNull();
    const later = NOW + CONFLICT_QUIET_MS;
    expect(
      judgePresence(known({ conflict }), { online: true, boot: 6, instance: B }, later)?.conflict,
    ).toBeNull();
  });
});
