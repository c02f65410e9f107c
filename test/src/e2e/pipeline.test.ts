import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { manifestFiles, type EventData } from "@fieldloop/protocol";
import { decodeModel, encodeModel } from "@fieldloop/runtime";
import {
  buildPipeline,
  openPackage,
  replacePart,
  splitPackage,
  writePackage,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { packagePath } from "@fieldloop/models";
import { afterAll, describe, expect, it } from "vitest";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";

/** A shipped model as a backbone and a head, on a real device: then a new version of the head alone. */
const TIMEOUT_MS = 180_000;
const STEP_MS = 60_000;
const CREATED = new Date("2026-11-20T00:00:00Z");
const DEVICE = "split-1";
const scratch = scratchFolder("pipeline");

afterAll(async () => {
  await endPrograms();
  scratch.remove();
});

/** The head's package with other files that compute the same: what it takes to see which files travel. */
async function writtenAnew(head: ModelPackage): Promise<ModelPackage> {
  const files: Record<string, Uint8Array> = {};
  for (const { file } of manifestFiles(head.manifest)) files[file] = await readFile(join(head.dir, file));
  for (const { file } of head.manifest.variants) {
    const model = decodeModel(files[file]!);
    model.producerName = "written anew";
    files[file] = encodeModel(model);
  }
  const draft = { ...head.manifest, version: head.manifest.version + 1 };
  return writePackage(join(scratch.path, "head-2"), draft, files);
}

describe("a pipeline on a device", () => {
  it("predicts, and takes a new head without fetching its backbone again", {
    timeout: TIMEOUT_MS,
  }, async () => {
    const whole = await openPackage(packagePath("parts"));
    const { spec, parts } = await splitPackage(join(scratch.path, "cut"), whole, { created: CREATED });
    const first = await buildPipeline(join(scratch.path, "first"), spec, parts, { created: CREATED });
    const [name] = spec.nodes.map((node) => node.name);
    const better = await writtenAnew(parts.get(name!)!);
    const second = await replacePart(join(scratch.path, "second"), first, name!, better, {
      created: CREATED,
    });

    const server = await ServerProgram.start({ folder: scratch.path });
    const agent = new AgentProgram({
      folder: scratch.path,
      device: DEVICE,
      source: "simulator:parts?fps=30&feedback=0",
    });
    await agent.start({ server: server.url, token: await server.enrolmentToken() });
    const measured: Readonly<Record<string, number>>[] = [];
    for (const pkg of [first, second]) {
      const { rollout } = await server.rollOut(await server.publish(pkg), [DEVICE]);
      expect((await server.settled(rollout, STEP_MS)).state).toBe("succeeded");
      await agent.predicts(30);
      measured.push(await downloadOf(server, pkg.manifest.version));
    }
    await agent.stop();
    await server.stop();

    const old = new Set(manifestFiles(first.manifest).map(({ sha256 }) => sha256));
    const files = manifestFiles(second.manifest, "running");
    const changed = files.filter(({ sha256 }) => !old.has(sha256));
    expect(changed.map(({ file }) => file)).toEqual(
      second.manifest.nodes.flatMap(({ variants }) => variants.map(({ file }) => file)),
    );
    const bytes = (some: typeof files): number => some.reduce((sum, file) => sum + file.bytes, 0);
    expect(measured[1]).toMatchObject({
      bytesDownloaded: bytes(changed),
      bytesReused: bytes(files) - bytes(changed),
    });
    console.log(
      `first version ${measured[0]!["bytesDownloaded"]} bytes, new head ${measured[1]!["bytesDownloaded"]}, reused ${measured[1]!["bytesReused"]}`,
    );
  });
});

/** What the device said of the download of a version, when it began to verify it. */
async function downloadOf(server: ServerProgram, version: number): Promise<Readonly<Record<string, number>>> {
  const { items } = await server.client.get<{ items: { data: EventData }[] }>(
    `/api/v1/devices/${DEVICE}/events?type=deployment&limit=200`,
  );
  for (const { data } of items) {
    if (data.type === "deployment" && data.version === version && data.state === "verifying")
      return data.measured;
  }
  throw new Error(`no download of version ${version} among ${items.length} events`);
}
