import {
  downloadTufClient,
  initTufClient,
  refreshTufClient,
  type TufClientOptions,
} from "@fieldloop/device-agent/tuf-client";
import { FieldloopError } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action } from "../output.js";

interface TufClientFlags {
  readonly metadataDir: string;
  readonly metadataUrl?: string;
  readonly targetName: readonly string[];
  readonly targetBaseUrl?: string;
  readonly targetDir?: string;
}

const DESCRIPTION =
  "A device's update trust (TUF) as a client of any repository: what the tuf-conformance suite drives";

const HELP = `
Exit code 0: done; 1: refused or not reachable; 2: the call was wrong. What is trusted lies in the metadata folder as
root.json, timestamp.json, snapshot.json, targets.json and one file for each delegated role.

Examples:
  fieldloop tuf-client --metadata-dir trusted init root.json
  fieldloop tuf-client --metadata-dir trusted --metadata-url https://host/metadata/ refresh
  fieldloop tuf-client --metadata-dir trusted --metadata-url https://host/metadata/ \\
    --target-name a/b.txt --target-base-url https://host/targets/ --target-dir out download
`;

export function registerTufClientCommand(program: Command): void {
  const client = program
    .command("tuf-client")
    .description(DESCRIPTION)
    .requiredOption("--metadata-dir <dir>", "folder of what is trusted")
    .option("--metadata-url <url>", "where the repository's metadata are")
    .option("--target-name <path>", "target to download; may be repeated, in order", collect, [])
    .option("--target-base-url <url>", "where the repository's targets are")
    .option("--target-dir <dir>", "folder for downloaded targets")
    .addHelpText("after", HELP);
  client
    .command("init")
    .description("Trust a root, without a network")
    .argument("<root>", "file of the root metadata to start from")
    .action(verdict((flags, root: string) => initTufClient(optionsOf(flags), root)));
  client
    .command("refresh")
    .description("Bring the metadata up to date")
    .action(
      verdict((flags) =>
        refreshTufClient({ ...optionsOf(flags), metadataUrl: wanted(flags.metadataUrl, "--metadata-url") }),
      ),
    );
  client
    .command("download")
    .description("Bring the metadata up to date, then fetch targets that are not in the folder yet")
    .action(verdict((flags) => download(flags)));
}

function download(flags: TufClientFlags): Promise<void> {
  if (flags.targetName.length === 0) wanted(undefined, "--target-name");
  return downloadTufClient({
    ...optionsOf(flags),
    metadataUrl: wanted(flags.metadataUrl, "--metadata-url"),
    targetNames: flags.targetName,
    targetBaseUrl: wanted(flags.targetBaseUrl, "--target-base-url"),
    targetDir: wanted(flags.targetDir, "--target-dir"),
  });
}

function optionsOf({ metadataDir }: TufClientFlags): TufClientOptions {
  return { metadataDir, signal: new AbortController().signal };
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function wanted(value: string | undefined, flag: string): string {
  if (value === undefined) throw new FieldloopError("invalid_argument", `${flag} is missing (add --help)`);
  return value;
}

/** An action that gets the options of `tuf-client` itself, wherever they stand in the line. */
function verdict<Args extends unknown[]>(
  work: (flags: TufClientFlags, ...args: Args) => Promise<void>,
): (...args: [...Args, unknown, Command]) => Promise<void> {
  return action(async (...args) => {
    const command = args.at(-1) as Command;
    await work(command.optsWithGlobals<TufClientFlags>(), ...(args.slice(0, -2) as Args));
  });
}
