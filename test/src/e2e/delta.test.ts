import { join } from "node:path";
import type { EventData } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, describe, expect, it } from "vitest";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { writeTinyPackage } from "../kit/tiny-package.js";

const scratch = scratchFolder("delta");
const DEVICE = "cam-1";
const STEP_MS = 60_000;
/** A model file of some 560 kB. */
const HIDDEN = 20_000;

afterAll(async () => {
  await endPrograms();
  scratch.remove();
});

describe("a new version of a model with most weights as before", () => {
  it("travels as a delta, and as a whole file where the device has none to build on", {
    timeout: 180_000,
  }, async () => {
    const folder = scratch.path;
    const write = (version: number, options: object): Promise<ModelPackage> =>
      writeTinyPackage(join(folder, `tiny-${version}`), { version, hidden: HIDDEN, ...options });
    const server = await ServerProgram.start({ folder });
    const agent = new AgentProgram({ folder, device: DEVICE, source: "simulator:parts?fps=20&feedback=0" });
    await agent.start({ server: server.url, token: await server.enrolmentToken() });

    const fetched: { model: number; measured: Readonly<Record<string, number>> }[] = [];
    for (const pkg of [await write(1, {}), await write(2, { shift: 0.25 }), await write(3, { seed: 3 })]) {
      const { rollout } = await server.rollOut(await server.publish(pkg), [DEVICE]);
      expect((await server.settled(rollout, STEP_MS)).state).toBe("succeeded");
      await agent.predicts(5);
      expect((await agent.state()).running?.packageSha256).toBe(pkg.packageSha256);
      const [variant] = pkg.manifest.variants;
      fetched.push({ model: variant!.bytes, measured: await downloadOf(server, pkg.manifest.version) });
    }
    await agent.stop();
    await server.stop();

    const [first, second, third] = fetched;
    expect(first!.measured).toMatchObject({ deltaBytes: 0, bytesRebuilt: 0 });
    expect(second!.measured).toMatchObject({ bytesRebuilt: second!.model });
    expect(second!.measured["deltaBytes"]).toBeLessThan(second!.model * 0.02);
    expect(second!.measured["deltaBytes"]).toBeGreaterThan(0);
    // Weights that were drawn anew have nothing in common with those before.
    expect(third!.measured["bytesDownloaded"]).toBeGreaterThan(third!.model * 0.8);
    console.log(
      fetched.map(({ model, measured }) => `${model} bytes of model: ${JSON.stringify(measured)}`).join("\n"),
    );
  });
});

/** What the device said when a version's files were there. */
async function downloadOf(server: ServerProgram, version: number): Promise<Readonly<Record<string, number>>> {
  const { items } = await server.client.get<{ items: { data: EventData }[] }>(
    `/api/v1/devices/${DEVICE}/events?type=deployment&limit=200`,
  );
  const event = items.find(
    ({ data }) => data.type === "deployment" && data.version === version && data.state === "verifying",
  );
  return event?.data.type === "deployment" ? event.data.measured : {};
}
