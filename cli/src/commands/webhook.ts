import { FieldloopError, WEBHOOK_EVENT_TYPES, type Webhook, type WebhookDelivery } from "@fieldloop/protocol";
import { Option, type Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  queryOf,
  readCount,
  readList,
  takeItems,
  timeText,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

export function registerWebhookCommand(program: Command): void {
  const webhook = program
    .command("webhook")
    .description("Have other systems told of rollouts: signed CloudEvents over HTTPS (admin)");
  withFleetOptions(
    webhook
      .command("create <url>")
      .description("Post events to an address; prints the secret that signs them, this once")
      .option(
        "--events <types>",
        `only these, separated by commas: ${WEBHOOK_EVENT_TYPES.join(", ")}`,
        readList,
      )
      .option("--description <text>", "what it is for")
      .option("--disabled", "nothing is sent before it is enabled"),
  ).action(action(create));
  withFleetOptions(webhook.command("list").description("Webhooks, and how their deliveries stand")).action(
    action(list),
  );
  withFleetOptions(webhook.command("show <webhook>").description("One webhook, without its secret")).action(
    action(show),
  );
  withFleetOptions(
    webhook
      .command("update <webhook>")
      .description("Change it; what is not named stays. A new secret is printed, this once")
      .option("--url <url>", "another address")
      .option("--events <types>", `only these, separated by commas, or "all"`, readList)
      .option("--description <text>", "what it is for")
      .option("--enable", "send events again")
      .addOption(new Option("--disable", "send nothing until it is enabled").conflicts("enable"))
      .addOption(
        new Option(
          "--rotate-secret [how]",
          "a new secret; the old one signs beside it for a day (overlap), or no longer (at-once)",
        )
          .choices(["overlap", "at-once"])
          .preset("overlap"),
      ),
  ).action(action(update));
  withFleetOptions(
    webhook.command("delete <webhook>").description("Forget a webhook and its deliveries"),
  ).action(action(remove));
  withFleetOptions(webhook.command("test <webhook>").description("Send it a ping")).action(action(test));
  withFleetOptions(
    webhook
      .command("deliveries <webhook>")
      .description("What it was sent and how that went, newest first")
      .addOption(new Option("--state <state>", "in one state").choices(["pending", "delivered", "dead"]))
      .addOption(new Option("--resend <delivery>", "try one again that was given up").conflicts("state"))
      .option("--limit <count>", "at most", readCount, 100),
  ).action(action(deliveries));
}

interface CreateOptions extends FleetOptions {
  events?: string[];
  description?: string;
  disabled?: boolean;
}

async function create(url: string, options: CreateOptions): Promise<void> {
  const { events, description, disabled } = options;
  const created = await fleetClient(options).post<Webhook>("/api/v1/webhooks", {
    url,
    events,
    description,
    enabled: disabled !== true,
  });
  if (options.json) return printJson(created);
  note(`${created.webhook}: ${created.url}`);
  note(`secret (shown this once): ${created.secret}`);
}

async function list(options: FleetOptions): Promise<void> {
  const webhooks = await takeItems(fleetClient(options).list<Webhook>("/api/v1/webhooks"), 1_000);
  if (options.json) return printJson(webhooks);
  printTable([
    ["WEBHOOK", "ADDRESS", "EVENTS", "ENABLED", "WAITING", "GIVEN UP", "DESCRIPTION"],
    ...webhooks.map(rowOf),
  ]);
}

async function show(webhook: string, options: FleetOptions): Promise<void> {
  const found = await fleetClient(options).get<Webhook>(pathOf(webhook));
  if (options.json) return printJson(found);
  printTable([
    ["WEBHOOK", "ADDRESS", "EVENTS", "ENABLED", "WAITING", "GIVEN UP", "DESCRIPTION"],
    rowOf(found),
  ]);
}

interface UpdateOptions extends FleetOptions {
  url?: string;
  events?: string[];
  description?: string;
  enable?: boolean;
  disable?: boolean;
  rotateSecret?: "overlap" | "at-once";
}

async function update(webhook: string, options: UpdateOptions): Promise<void> {
  const { url, events, description, enable, disable, rotateSecret } = options;
  const change = {
    url,
    events: events?.join() === "all" ? [] : events,
    description,
    enabled: enable ? true : disable ? false : undefined,
    rotateSecret: rotateSecret === "at-once" ? "at_once" : rotateSecret,
  };
  if (Object.values(change).every((value) => value === undefined))
    throw new FieldloopError(
      "invalid_argument",
      "Update webhook: nothing to change; give --url, --events, --description, --enable, --disable or --rotate-secret",
    );
  const changed = await fleetClient(options).patch<Webhook>(pathOf(webhook), change);
  if (options.json) return printJson(changed);
  note(`${changed.webhook}: ${changed.url}, ${changed.enabled ? "enabled" : "disabled"}`);
  if (changed.secret === undefined) return;
  note(`secret (shown this once): ${changed.secret}`);
  if (changed.previousSecretUntil !== null)
    note(`the old one signs beside it until ${timeText(changed.previousSecretUntil)}`);
}

function rowOf(one: Webhook): string[] {
  const events = one.events.length === 0 ? "all" : one.events.join(",");
  const counts = [String(one.pending), String(one.dead)];
  return [one.webhook, one.url, events, one.enabled ? "yes" : "no", ...counts, one.description];
}

async function remove(webhook: string, options: FleetOptions): Promise<void> {
  await fleetClient(options).delete(pathOf(webhook));
  if (options.json) return printJson({ webhook, deleted: true });
  note(`${webhook}: deleted`);
}

async function test(webhook: string, options: FleetOptions): Promise<void> {
  const delivery = await fleetClient(options).post<WebhookDelivery>(`${pathOf(webhook)}/test`, undefined);
  if (options.json) return printJson(delivery);
  note(`${delivery.delivery}: on its way; "fieldloop webhook deliveries ${webhook}" says how it went`);
}

interface DeliveriesOptions extends FleetOptions {
  state?: string;
  resend?: string;
  limit: number;
}

async function deliveries(webhook: string, options: DeliveriesOptions): Promise<void> {
  const client = fleetClient(options);
  const path = `${pathOf(webhook)}/deliveries`;
  if (options.resend !== undefined) {
    const again = await client.post<WebhookDelivery>(
      `${path}/${encodeURIComponent(options.resend)}/resend`,
      undefined,
    );
    if (options.json) return printJson(again);
    note(`${again.delivery}: waits to be sent again`);
    return;
  }
  const query = queryOf({ state: options.state });
  const items = await takeItems(client.list<WebhookDelivery>(`${path}${query}`), options.limit);
  if (options.json) return printJson(items);
  printTable([
    ["DELIVERY", "EVENT", "ABOUT", "CREATED", "STATE", "ATTEMPTS", "NEXT", "ANSWER"],
    ...items.map((one) => [
      ...[one.delivery, one.type, one.subject, timeText(one.created), one.state, String(one.attempts)],
      ...[timeText(one.nextAttempt), one.error ?? String(one.status ?? "–")],
    ]),
  ]);
}

function pathOf(webhook: string): string {
  return `/api/v1/webhooks/${encodeURIComponent(webhook)}`;
}
