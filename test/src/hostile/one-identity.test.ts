import { cpSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { writeTinyPackage } from "../kit/tiny-package.js";
import { until } from "../kit/wait.js";

const DEVICE = "cam-1";
const STEP_MS = 60_000;
const scratch = scratchFolder("identity");

afterAll(async () => {
  await endPrograms();
  scratch.remove();
});

/** The attack of the table that wants a whole server: a memory card was copied, and both devices are switched on. */
describe("two devices with one identity", () => {
  it("are told to the operators by code, are never merged, and the one that is left can update again", async () => {
    const { path: folder } = scratch;
    const server = await ServerProgram.start({ folder });
    await server.client.patch("/api/v1/policies/default", {
      predictionsIntervalSeconds: 0.2,
      bytesPerHour: 0,
    });
    const source = "simulator:parts?fps=20&feedback=0";
    const first = new AgentProgram({ folder, device: DEVICE, source });
    await first.start({ server: server.url, token: await server.enrolmentToken() });
    const one = await server.publish(await writeTinyPackage(join(folder, "tiny-1"), { version: 1 }));
    expect((await server.settled((await server.rollOut(one, [DEVICE])).rollout, STEP_MS)).state).toBe(
      "succeeded",
    );
    await first.stop();

    cpSync(first.stateDir, join(folder, "copy", DEVICE), { recursive: true });
    const second = new AgentProgram({ folder: join(folder, "copy"), device: DEVICE, source });
    await Promise.all([first.start(), second.start()]);
    expect(second.boot).toBe(first.boot);
    const warned = await until(
      "the server tells of two agents",
      async () => {
        const view = await server.device(DEVICE);
        return view.warnings.some(({ code }) => code === "identity_conflict") ? view : undefined;
      },
      { timeoutMs: STEP_MS },
    );
    expect(warned.health).toBe("error");
    expect(warned.warnings[0]).toMatchObject({ code: "identity_conflict", severity: "error" });
    // From here on neither one's predictions are taken in: they cannot be told apart.
    const { predictionsTotal } = await server.device(DEVICE);
    await Promise.all([first.predicts(20), second.predicts(20)]);
    expect((await server.device(DEVICE)).predictionsTotal).toBe(predictionsTotal);
    expect((await first.state()).running?.packageSha256).toBe(one.packageSha256);

    await second.kill();
    await first.stop();
    await first.start();
    await until(
      "what the one that is left predicts is taken in",
      async () => (await server.device(DEVICE)).predictionsTotal > predictionsTotal,
      { timeoutMs: STEP_MS },
    );
    const two = await server.publish(await writeTinyPackage(join(folder, "tiny-2"), { version: 2, seed: 2 }));
    expect((await server.settled((await server.rollOut(two, [DEVICE])).rollout, STEP_MS)).state).toBe(
      "succeeded",
    );
    expect((await first.state()).running?.packageSha256).toBe(two.packageSha256);
    await first.stop();
    await server.stop();
  }, 240_000);
});
