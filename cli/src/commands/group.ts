import { FieldloopError, type Group } from "@fieldloop/protocol";
import { Option, type Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  readList,
  readTags,
  tagText,
  takeItems,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

/** The group of every device: it always exists, and is not among those that were made. */
const EVERY_DEVICE = "all";
const GROUPS_MAX = 10_000;
const MEMBERS_MAX = 1_000_000;

export function registerGroupCommand(program: Command): void {
  const group = program
    .command("group")
    .description("Name devices for rollouts and policies: a list, or every device with some tags");
  withFleetOptions(group.command("list").description("Groups; `all` is every device, and not listed")).action(
    action(list),
  );
  withFleetOptions(group.command("show <group>").description("What it is, and its devices now")).action(
    action(show),
  );
  withFleetOptions(
    group
      .command("set <group>")
      .description("Make it, or replace what it was")
      .option("--devices <ids>", "these devices, separated by commas", readList)
      .addOption(
        new Option(
          "--select <tags>",
          "every device with all of these tags, now and later, e.g. site=lyon,line=3",
        )
          .argParser(readTags)
          .conflicts("devices"),
      ),
  ).action(action(set));
  withFleetOptions(group.command("remove <group>").description("Forget it; its devices stay")).action(
    action(remove),
  );
}

async function list(options: FleetOptions): Promise<void> {
  const groups = await takeItems(fleetClient(options).list<Group>("/api/v1/groups"), GROUPS_MAX);
  if (options.json) return printJson(groups);
  printTable([["GROUP", "HOLDS"], ...groups.map((one) => [one.group, holdsText(one)])]);
}

async function show(name: string, options: FleetOptions): Promise<void> {
  const client = fleetClient(options);
  const members = await takeItems(client.list<string>(`${pathOf(name)}/devices`), MEMBERS_MAX);
  const groups = await takeItems(client.list<Group>("/api/v1/groups"), GROUPS_MAX);
  const made = groups.find(({ group }) => group === name);
  const { devices = null, selector = null } = made ?? {};
  if (options.json) return printJson({ group: name, devices, selector, members });
  printTable([
    ["GROUP", name],
    ["holds", made ? holdsText(made) : "every device"],
    ["devices now", members.length === 0 ? "none" : `${members.length}: ${members.join(" ")}`],
  ]);
}

interface SetOptions extends FleetOptions {
  devices?: string[];
  select?: Record<string, string>;
}

async function set(name: string, options: SetOptions): Promise<void> {
  const { devices = null, select: selector = null } = options;
  if (devices === null && selector === null)
    throw new FieldloopError("invalid_argument", `Set group "${name}": give --devices or --select`);
  const group = await fleetClient(options).put<Group>(pathOf(name), { devices, selector });
  if (options.json) return printJson(group);
  note(`${group.group}: ${holdsText(group)}`);
}

async function remove(name: string, options: FleetOptions): Promise<void> {
  if (name === EVERY_DEVICE)
    throw new FieldloopError("invalid_argument", `Remove group: "${EVERY_DEVICE}" is every device, always`);
  await fleetClient(options).delete(pathOf(name));
  if (options.json) return printJson({ group: name, removed: true });
  note(`${name}: removed`);
}

function holdsText({ devices, selector }: Group): string {
  return devices ? devices.join(" ") : `every device with ${tagText(selector ?? {})}`;
}

function pathOf(group: string): string {
  return `/api/v1/groups/${encodeURIComponent(group)}`;
}
