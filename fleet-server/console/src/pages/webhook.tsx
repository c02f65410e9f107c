import type { Webhook, WebhookDelivery } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { request } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { formatCount } from "../lib/format.js";
import { notifyDone, notifyError } from "../lib/toast.js";
import { DELIVERY_KIND, DELIVERY_TEXT, shortType, standing } from "../lib/webhooks.js";
import { Badge, Copy, State, Time } from "../ui/atoms.js";
import { Dialog } from "../ui/dialog.js";
import { Empty, Facts, Loaded, Page, Panel } from "../ui/layout.js";
import { SecretDialog, WebhookForm, webhookApi } from "./webhook-form.js";
import { eventsText, WEBHOOKS_LIVE } from "./webhooks.js";

const SHOWN = 50;
type Asked = "change" | "rotate" | "delete";

export function WebhookPage({ webhook: id }: { webhook: string }) {
  const [, navigate] = useLocation();
  const refused = whyNot("admin");
  const api = webhookApi(id);
  const webhook = useResource<Webhook>(refused ? null : api, WEBHOOKS_LIVE);
  const deliveries = useResource<{ items: WebhookDelivery[] }>(
    refused ? null : `${api}/deliveries?limit=${SHOWN}`,
    WEBHOOKS_LIVE,
  );
  const [asked, setAsked] = useState<Asked | undefined>(undefined);
  const [secret, setSecret] = useState<Webhook | undefined>(undefined);
  const { data } = webhook;
  const run = async (title: string, work: () => Promise<unknown>) => {
    try {
      await work();
      notifyDone(title);
      webhook.reload();
      deliveries.reload();
    } catch (error) {
      notifyError(title, error);
    }
  };
  const remove = async () => {
    try {
      await request(api, { method: "DELETE" });
      notifyDone("Webhook deleted");
      navigate("/webhooks");
    } catch (error) {
      notifyError("Delete", error);
    }
  };
  const change = (body: unknown) => request<Webhook>(api, { method: "PATCH", body });
  return (
    <Page
      title={data ? new URL(data.url).host : id}
      name={`Webhook ${id}`}
      parents={[{ title: "Webhooks", href: "/webhooks" }]}
      beside={
        <>
          <code class="muted">{id}</code>
          <Copy text={id} what="webhook id" />
          {data && <Badge kind={standing(data).kind}>{standing(data).title}</Badge>}
        </>
      }
      actions={
        data && (
          <>
            <button
              type="button"
              class="primary"
              disabled={!data.enabled}
              title={data.enabled ? undefined : "It is disabled"}
              onClick={() => void run("Test sent", () => request(`${api}/test`, { method: "POST" }))}
            >
              Send a test
            </button>
            <button type="button" onClick={() => setAsked("change")}>
              Change
            </button>
            <button
              type="button"
              onClick={() =>
                void run(data.enabled ? "Disabled" : "Enabled", () => change({ enabled: !data.enabled }))
              }
            >
              {data.enabled ? "Disable" : "Enable"}
            </button>
            <button type="button" onClick={() => setAsked("rotate")}>
              New secret
            </button>
            <button type="button" class="danger" onClick={() => setAsked("delete")}>
              Delete
            </button>
          </>
        )
      }
    >
      {refused ? (
        <Empty title="Webhooks are an administrator’s">
          <p>{refused}</p>
        </Empty>
      ) : (
        <Loaded from={webhook} rows={3}>
          {(loaded) => (
            <>
              <About webhook={loaded} />
              <Panel title="Deliveries" note={`the newest ${SHOWN}, newest first`} flush>
                <Loaded from={deliveries} rows={4}>
                  {({ items }) => (
                    <Deliveries
                      items={items}
                      resend={(one) =>
                        void run("Sent again", () =>
                          request(`${api}/deliveries/${encodeURIComponent(one)}/resend`, { method: "POST" }),
                        )
                      }
                    />
                  )}
                </Loaded>
              </Panel>
            </>
          )}
        </Loaded>
      )}
      {asked === "change" && data && (
        <WebhookForm
          webhook={data}
          close={() => setAsked(undefined)}
          done={(saved) => {
            webhook.set(saved);
            setAsked(undefined);
          }}
        />
      )}
      {asked === "rotate" && (
        <Rotate
          close={() => setAsked(undefined)}
          rotate={(rotateSecret) => {
            setAsked(undefined);
            void run("Secret replaced", async () => setSecret(await change({ rotateSecret })));
          }}
        />
      )}
      {asked === "delete" && (
        <Delete
          close={() => setAsked(undefined)}
          remove={() => {
            setAsked(undefined);
            void remove();
          }}
        />
      )}
      {secret && <SecretDialog webhook={secret} close={() => setSecret(undefined)} />}
    </Page>
  );
}

function About({ webhook }: { webhook: Webhook }) {
  return (
    <Panel title="Settings">
      <Facts
        rows={[
          [
            "Address",
            <code key="url" class="breakable">
              {webhook.url}
            </code>,
          ],
          ...(webhook.description ? [["What it is for", webhook.description] as const] : []),
          ["Events", eventsText(webhook)],
          ["Waiting", formatCount(webhook.pending)],
          ["Given up", formatCount(webhook.dead)],
          [
            "Created",
            <span key="created">
              <Time at={webhook.created} /> by {webhook.createdBy}
            </span>,
          ],
          ...(webhook.previousSecretUntil === null
            ? []
            : [["Old secret signs until", <Time key="until" at={webhook.previousSecretUntil} />] as const]),
        ]}
      />
    </Panel>
  );
}

function Deliveries({
  items,
  resend,
}: {
  items: readonly WebhookDelivery[];
  resend: (delivery: string) => void;
}) {
  if (items.length === 0)
    return (
      <Empty title="Nothing was sent yet">
        <p>Send a test: a ping, signed like every event.</p>
      </Empty>
    );
  return (
    <div class="table-scroll">
      <table class="deliveries">
        <thead>
          <tr>
            <th>State</th>
            <th>Event</th>
            <th>Answer</th>
            <th class="number">Attempts</th>
            <th class="number">When</th>
          </tr>
        </thead>
        <tbody>
          {items.map((one) => (
            <tr key={one.delivery}>
              <td class="nowrap">
                <State kind={DELIVERY_KIND[one.state]} title={one.delivery}>
                  {DELIVERY_TEXT[one.state]}
                </State>
              </td>
              <td>
                <code>{shortType(one.type)}</code>
              </td>
              <td class="col-answer">
                {one.error ?? (one.status === null ? <span class="faint">–</span> : one.status)}
                {one.state === "pending" && one.attempts > 0 && (
                  <span class="muted">
                    {" "}
                    · again <Time at={one.nextAttempt} />
                  </span>
                )}
                {one.state === "dead" && (
                  <button type="button" class="small" onClick={() => resend(one.delivery)}>
                    Send again
                  </button>
                )}
              </td>
              <td class="number">{one.attempts}</td>
              <td class="number nowrap">
                <Time at={one.created} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Rotate({ close, rotate }: { close: () => void; rotate: (how: "overlap" | "at_once") => void }) {
  return (
    <Dialog title="A new secret?" close={close}>
      <p>
        With an overlap the old secret signs beside the new one for a day. A secret that leaked is replaced at
        once.
      </p>
      <div class="dialog-actions">
        <button type="button" onClick={close}>
          Keep it
        </button>
        <button type="button" class="danger" onClick={() => rotate("at_once")}>
          Replace at once
        </button>
        <button type="button" class="primary" onClick={() => rotate("overlap")}>
          Replace with an overlap
        </button>
      </div>
    </Dialog>
  );
}

function Delete({ close, remove }: { close: () => void; remove: () => void }) {
  return (
    <Dialog title="Delete this webhook?" close={close}>
      <ul class="consequences">
        <li>Nothing is sent to it any longer, and what waits is not sent either.</li>
        <li>Its deliveries and its secret are forgotten; the audit log keeps who deleted it.</li>
      </ul>
      <div class="dialog-actions">
        <button type="button" onClick={close}>
          Keep it
        </button>
        <button type="button" class="danger" onClick={remove}>
          Delete
        </button>
      </div>
    </Dialog>
  );
}
