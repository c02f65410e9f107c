import { ROLES, type ApiToken, type CreatedToken, type Role } from "@fieldloop/protocol";
import { Option, type Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { fleetClient, takeItems, timeText, withFleetOptions, type FleetOptions } from "./fleet-options.js";

const TOKENS_MAX = 10_000;

export function registerTokenCommand(program: Command): void {
  const token = program
    .command("token")
    .description("Who may use the fleet server: API tokens of people and of programs (admin)");
  withFleetOptions(
    token.command("list").description("Tokens by name: role, whose each is, who answers for it"),
  ).action(action(list));
  withFleetOptions(
    token
      .command("create <name>")
      .description("Make a token; its secret is printed, this once")
      .addOption(
        new Option("--role <role>", "what it may do; each role includes those before it")
          .choices(ROLES)
          .makeOptionMandatory(),
      )
      .option(
        "--person <name>",
        "whose it is; without one it is a program's: you answer for it, and it cannot approve rollouts",
      ),
  ).action(action(create));
  withFleetOptions(
    token.command("revoke <name>").description("Refuse it from now on, and end its sessions"),
  ).action(action(revoke));
}

async function list(options: FleetOptions): Promise<void> {
  const tokens = await takeItems(fleetClient(options).list<ApiToken>("/api/v1/tokens"), TOKENS_MAX);
  if (options.json) return printJson(tokens);
  printTable([
    ["TOKEN", "ROLE", "OF", "ANSWERS FOR IT", "CREATED", "STATE"],
    ...tokens.map((one) => [
      ...[one.name, one.role, one.person ?? "a program", one.sponsor, timeText(one.created)],
      one.revoked ? "revoked" : "valid",
    ]),
  ]);
}

async function create(name: string, options: FleetOptions & { role: Role; person?: string }): Promise<void> {
  const { role, person } = options;
  const made = await fleetClient(options).post<CreatedToken>("/api/v1/tokens", { name, role, person });
  if (options.json) return printJson(made);
  const whose =
    made.person === null
      ? "a program's: you answer for it, and it cannot approve rollouts"
      : `speaks for ${made.person}`;
  note(`${made.name}: ${made.role}, ${whose}`);
  note("secret (shown this once):");
  process.stdout.write(`${made.token}\n`);
}

async function revoke(name: string, options: FleetOptions): Promise<void> {
  await fleetClient(options).delete(`/api/v1/tokens/${encodeURIComponent(name)}`);
  if (options.json) return printJson({ name, revoked: true });
  note(`${name}: revoked, and its sessions have ended`);
}
