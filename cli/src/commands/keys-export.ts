import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { metadataFileName, TRUST_METADATA_PATH, type TrustRole, type TrustView } from "@fieldloop/protocol";
import { note, printJson } from "../output.js";
import { fleetClient, type FleetOptions } from "./fleet-options.js";
import { writeNew } from "./keys-files.js";

/** `fieldloop keys export`: every root, the other metadata in force, and the newest root as `root.json`. */
export async function exportMetadata(options: FleetOptions & { out: string }): Promise<void> {
  const client = fleetClient(options);
  const { roles } = await client.get<TrustView>("/api/v1/trust");
  const versionOf = (role: TrustRole): number => roles.find((one) => one.role === role)!.version;
  const names = [
    ...Array.from({ length: versionOf("root") }, (_, index) => metadataFileName("root", index + 1)),
    metadataFileName("targets", versionOf("targets")),
    metadataFileName("snapshot", versionOf("snapshot")),
    metadataFileName("timestamp", versionOf("timestamp")),
  ];
  await mkdir(options.out, { recursive: true });
  const read = async (name: string): Promise<string> =>
    Buffer.from(await client.bytes(`${TRUST_METADATA_PATH}${name}`)).toString("utf8");
  for (const name of names) await writeNew(join(options.out, name), await read(name));
  await writeNew(join(options.out, "root.json"), await read(metadataFileName("root", versionOf("root"))));
  const files = [...names, "root.json"];
  if (options.json) return printJson({ folder: options.out, files });
  note(`${files.length} files are in ${options.out}; root.json is the newest root`);
}
