import { join } from "node:path";
import { formatModelVersion, manifestFiles, type ModelVersion } from "@fieldloop/protocol";
import { MANIFEST_FILE } from "@fieldloop/runtime";
import { openPackage } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import type { FleetClient } from "../client.js";
import { action, note, printJson } from "../output.js";
import { fleetClient, withFleetOptions, type FleetOptions } from "./fleet-options.js";

/** `fieldloop model publish`. */
export function registerPublish(model: Command): void {
  withFleetOptions(
    model
      .command("publish <dir>")
      .description(
        "Upload a model package and publish it as the next version; what the server has is not sent again",
      ),
  ).action(action(publish));
}

async function publish(dir: string, options: FleetOptions): Promise<void> {
  const version = await publishPackage(fleetClient(options), dir);
  if (options.json) return printJson(version);
  const name = formatModelVersion(version.model, version.version);
  note(
    `${name} is published: ${version.packageSha256}, ${(version.bytes / 1024).toFixed(0)} KB, evidence ${version.evidence}`,
  );
}

/** Checks a package folder, uploads its files by content and publishes it. */
export async function publishPackage(client: FleetClient, dir: string): Promise<ModelVersion> {
  const { manifest, packageSha256 } = await openPackage(dir);
  for (const { file, sha256 } of manifestFiles(manifest)) await client.putArtifact(join(dir, file), sha256);
  await client.putArtifact(join(dir, MANIFEST_FILE), packageSha256);
  return client.post<ModelVersion>(`/api/v1/models/${manifest.model}/versions`, {
    manifestSha256: packageSha256,
  });
}
