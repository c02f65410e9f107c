import type { Role, RolloutView } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { enrol, startTestServer, type Api, type TestServer } from "./kit.test.support.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  await enrol(server, "cam-1");
});
afterAll(() => server.end());

async function tokenOf(maker: Api, name: string, person?: string, role: Role = "operator"): Promise<Api> {
  const body = { name, role, ...(person === undefined ? {} : { person }) };
  return server.api.as((await maker.ok<{ token: string }>("POST", "/api/v1/tokens", body)).token);
}
let rollouts = 0;
const plan = (by: Api): Promise<RolloutView> =>
  by.ok("POST", "/api/v1/rollouts", {
    change: { kind: "config", policy: { predictionsIntervalSeconds: 7 + rollouts++ } },
    target: { devices: ["cam-1"] },
    waves: [{ percent: 100 }],
    approval: { required: true },
  });
const APPROVE = { action: "approve", reason: "read it" };
const approve = (by: Api, { rollout }: RolloutView): Promise<[number, string]> =>
  by.refused("POST", `/api/v1/rollouts/${rollout}/actions`, APPROVE);
const REFUSED = [409, "conflict"];
const DONE = [200, "none"];

/** A console's session of a token: a cookie, and no header. */
async function sessionOf(api: Api): Promise<(rollout: RolloutView) => Promise<[number, string]>> {
  const signedIn = await api.as(undefined).send("POST", "/api/v1/session", { token: api.token });
  const cookie = signedIn.headers.get("set-cookie")!.split(";")[0]!;
  return ({ rollout }) =>
    api
      .as(undefined)
      .refused("POST", `/api/v1/rollouts/${rollout}/actions`, APPROVE, { cookie, origin: server.httpUrl });
}

describe("approval by a second person", () => {
  it("is not given by another token, a session, a program or a program's program of the same person", async () => {
    const admin = await tokenOf(server.api, "ann", "ann", "admin");
    const laptop = await tokenOf(server.api, "ann-laptop", "ann");
    const program = await tokenOf(admin, "ci", undefined, "admin");
    const nested = await tokenOf(program, "ci-of-ci");
    const all = [admin, laptop, program, nested];
    for (const creator of all) {
      const rollout = await plan(creator);
      expect(rollout.state).toBe("awaiting_approval");
      for (const approver of all) {
        expect(await approve(approver, rollout)).toEqual(REFUSED);
        expect(await (await sessionOf(approver))(rollout)).toEqual(REFUSED);
      }
    }
  });

  it("is given by another person, also to what a program planned, and not by that person's program", async () => {
    const ben = await tokenOf(server.api, "ben", "ben");
    const robot = await tokenOf(server.api, "robot");
    for (const rollout of [await plan(server.api), await plan(robot)]) {
      expect(await approve(robot, rollout)).toEqual(REFUSED);
      expect(await approve(server.api, rollout)).toEqual(REFUSED);
      expect(await approve(ben, rollout)).toEqual(DONE);
      expect(await approve(ben, rollout)).toEqual(REFUSED);
    }
    // A program that somebody else answers for is no second person either.
    const carl = await tokenOf(server.api, "carl", "carl", "admin");
    const other = await tokenOf(carl, "carls-robot");
    expect(await approve(other, await plan(ben))).toEqual(REFUSED);
  });

  it("is not had by taking a name again, by its case, or with a token that was revoked", async () => {
    const dora = await tokenOf(server.api, "dora", "dora");
    const rollout = await plan(server.api);
    await server.api.ok("DELETE", "/api/v1/tokens/dora");
    expect(await approve(dora, rollout)).toEqual([401, "unauthenticated"]);
    const make = (body: object): Promise<[number, string]> =>
      server.api.refused("POST", "/api/v1/tokens", body);
    expect(await make({ name: "dora", role: "operator", person: "admin" })).toEqual([409, "already_exists"]);
    expect(await make({ name: "eve", role: "operator", person: "Admin" })).toEqual([400, "invalid_body"]);
    const listed = await server.api.ok<{ items: object[] }>("GET", "/api/v1/tokens");
    expect(listed.items).toContainEqual(
      expect.objectContaining({ name: "dora", person: "dora", sponsor: "dora" }),
    );
    const audit = JSON.stringify(await server.api.ok("GET", "/api/v1/audit?subject=token:dora"));
    expect(audit).toContain("token.created");
    expect(audit).toContain("token.revoked");
  });
});
