import type { Webhook } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { webhookPath } from "../lib/url.js";
import { EVENT_TYPES, shortType, standing } from "../lib/webhooks.js";
import { Command, State, Time } from "../ui/atoms.js";
import { Empty, Loaded, Page } from "../ui/layout.js";
import { rowClick, useListKeys } from "../ui/list.js";
import { SecretDialog, WebhookForm } from "./webhook-form.js";

/** Deliveries come and go without an event of their own. */
export const WEBHOOKS_LIVE = { live: ["rollout"], reloadMinMs: 1_000, pollMs: 3_000 } as const;

export function WebhooksPage() {
  const refused = whyNot("admin");
  const webhooks = useResource<{ items: Webhook[] }>(refused ? null : "/webhooks", WEBHOOKS_LIVE);
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<Webhook | undefined>(undefined);
  return (
    <Page
      title="Webhooks"
      actions={
        <button
          type="button"
          class="primary"
          disabled={refused !== undefined}
          title={refused}
          onClick={() => setMaking(true)}
        >
          New webhook
        </button>
      }
    >
      {refused ? (
        <Empty title="Webhooks are an administrator’s">
          <p>{refused}</p>
        </Empty>
      ) : (
        <Loaded from={webhooks} rows={3} height={49}>
          {({ items }) => (items.length === 0 ? <NoWebhooks /> : <WebhookTable webhooks={items} />)}
        </Loaded>
      )}
      {making && (
        <WebhookForm
          close={() => setMaking(false)}
          done={(saved) => {
            setMaking(false);
            setMade(saved);
            webhooks.reload();
          }}
        />
      )}
      {made && <SecretDialog webhook={made} close={() => setMade(undefined)} />}
    </Page>
  );
}

function WebhookTable({ webhooks }: { webhooks: readonly Webhook[] }) {
  const [, navigate] = useLocation();
  const open = (webhook: Webhook | undefined) => webhook && navigate(webhookPath(webhook.webhook));
  const { at, ref } = useListKeys("Webhooks", webhooks.length, (index) => open(webhooks[index]));
  return (
    <div class="table-scroll panel flush" ref={ref as preact.RefObject<HTMLDivElement>}>
      <table class="webhooks">
        <thead>
          <tr>
            <th>Address</th>
            <th>State</th>
            <th>Events</th>
            <th class="number">Created</th>
          </tr>
        </thead>
        <tbody>
          {webhooks.map((webhook, index) => {
            const { kind, title } = standing(webhook);
            return (
              <tr
                key={webhook.webhook}
                data-row={index}
                aria-current={index === at ? "true" : undefined}
                onClick={rowClick(() => open(webhook))}
              >
                <td class="col-address">
                  <Link class="strong truncate" href={webhookPath(webhook.webhook)} title={webhook.url}>
                    {webhook.url}
                  </Link>
                  {webhook.description && <span class="muted truncate">{webhook.description}</span>}
                </td>
                <td class="nowrap">
                  <State kind={kind}>{title}</State>
                </td>
                <td class="muted">{eventsText(webhook)}</td>
                <td class="number">
                  <Time at={webhook.created} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** `all`, or the short names of those that it asks for. */
export function eventsText({ events }: Webhook): string {
  if (events.length === 0 || events.length === EVENT_TYPES.length) return "all";
  return events.map((type) => shortType(type).replace("rollout.", "")).join(", ");
}

function NoWebhooks() {
  return (
    <Empty title="No webhook yet">
      <p>
        A webhook tells another system what happens to rollouts: a chat, an incident tool, a pipeline. Each
        event is a signed CloudEvent. Make one above, or:
      </p>
      <Command text="fieldloop webhook create https://ops.example.com/fieldloop" />
    </Empty>
  );
}
