import { join } from "node:path";
import { formatModelVersion, manifestFiles, type ModelVersion } from "@fieldloop/protocol";
import { MANIFEST_FILE } from "@fieldloop/runtime";
import { openPackage } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import type { FleetClient } from "../client.js";
import { action, note, printJson } from "../output.js";
import { fleetClient, readList, watchUntil, withFleetOptions, type FleetOptions } from "./fleet-options.js";

/** `fieldloop model publish`. */
export function registerPublish(model: Command): void {
  withFleetOptions(
    model
      .command("publish <dir>")
      .description(
        "Upload a model package and publish it as the next version; what the server has is not sent again",
      )
      .option(
        "--device-class <names>",
        "what it is made for, separated by commas; any where absent",
        readList,
      )
      .option("--wait", "stay until the targets keys have signed it, where they are not on the server"),
  ).action(action(publish));
}

interface PublishOptions extends FleetOptions {
  deviceClass?: string[];
  wait?: boolean;
}

async function publish(dir: string, options: PublishOptions): Promise<void> {
  const client = fleetClient(options);
  const published = await publishPackage(client, dir, options.deviceClass);
  const version = options.wait ? await waitForSignature(client, published) : published;
  if (options.json) return printJson(version);
  const name = formatModelVersion(version.model, version.version);
  note(
    `${name} is published: ${version.packageSha256}, ${(version.bytes / 1024).toFixed(0)} KB, evidence ${version.evidence}`,
  );
  if (version.state === "awaiting_signature") {
    note(
      `no device installs it before the targets keys have signed: fieldloop keys request --out request.json`,
    );
  }
}

function waitForSignature(client: FleetClient, { model, version }: ModelVersion): Promise<ModelVersion> {
  return watchUntil(
    () => client.get<ModelVersion>(`/api/v1/models/${model}/versions/${version}`),
    ({ state }) => (state === "awaiting_signature" ? "waits for the targets keys" : "signed"),
    ({ state }) => state !== "awaiting_signature",
    note,
  );
}

/** Checks a package folder, uploads its files by content and publishes it. */
export async function publishPackage(
  client: FleetClient,
  dir: string,
  deviceClasses?: readonly string[],
): Promise<ModelVersion> {
  const { manifest, packageSha256 } = await openPackage(dir);
  for (const { file, sha256 } of manifestFiles(manifest)) await client.putArtifact(join(dir, file), sha256);
  await client.putArtifact(join(dir, MANIFEST_FILE), packageSha256);
  return client.post<ModelVersion>(`/api/v1/models/${manifest.model}/versions`, {
    manifestSha256: packageSha256,
    ...(deviceClasses ? { deviceClasses } : {}),
  });
}
