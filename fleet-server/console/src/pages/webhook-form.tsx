import type { Webhook, WebhookEventType } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { type ApiError, request, toApiError } from "../api/client.js";
import { EVENT_TEXT, EVENT_TYPES, shortType } from "../lib/webhooks.js";
import { Command } from "../ui/atoms.js";
import { Dialog } from "../ui/dialog.js";
import { Field } from "../ui/fields.js";
import { Problem } from "../ui/layout.js";

/** Makes a webhook, or changes one; what the server refuses is said in place. */
export function WebhookForm({
  webhook,
  close,
  done,
}: {
  webhook?: Webhook;
  close: () => void;
  done: (saved: Webhook) => void;
}) {
  const [url, setUrl] = useState(webhook?.url ?? "");
  const [description, setDescription] = useState(webhook?.description ?? "");
  const [events, setEvents] = useState<readonly WebhookEventType[]>(
    webhook && webhook.events.length > 0 ? webhook.events : EVENT_TYPES,
  );
  const [error, setError] = useState<ApiError | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const all = events.length === EVENT_TYPES.length;
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      // All of them also means those that a later version adds.
      const body = { url, description, events: all ? [] : events };
      const settings = { method: webhook ? "PATCH" : "POST", body } as const;
      done(await request<Webhook>(webhook ? webhookApi(webhook.webhook) : "/webhooks", settings));
    } catch (problem) {
      setError(toApiError(problem));
      setBusy(false);
    }
  };
  return (
    <Dialog title={webhook ? "Change webhook" : "New webhook"} close={close}>
      <form class="webhook-form" onSubmit={(event) => void submit(event)}>
        {error && <Problem error={error} />}
        <Field label="Address" note="https; events are posted there">
          <input
            type="url"
            value={url}
            maxLength={2000}
            required
            placeholder="https://ops.example.com/fieldloop"
            onInput={(event) => setUrl(event.currentTarget.value)}
          />
        </Field>
        <Field label="What it is for">
          <input
            value={description}
            maxLength={200}
            placeholder="optional"
            onInput={(event) => setDescription(event.currentTarget.value)}
          />
        </Field>
        <fieldset class="checks">
          <legend class="muted">Tell it when</legend>
          {EVENT_TYPES.map((type) => (
            <label class="check" key={type}>
              <input
                type="checkbox"
                checked={events.includes(type)}
                onChange={() =>
                  setEvents(events.includes(type) ? events.filter((one) => one !== type) : [...events, type])
                }
              />
              <span>
                {EVENT_TEXT[type]} <code class="faint">{shortType(type)}</code>
              </span>
            </label>
          ))}
        </fieldset>
        <div class="dialog-actions">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={busy || events.length === 0}>
            {webhook ? "Save" : "Create"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A secret, this once. */
export function SecretDialog({ webhook, close }: { webhook: Webhook; close: () => void }) {
  return (
    <Dialog title="Secret of the webhook" close={close}>
      <p>
        Every delivery is signed with it. It is shown now and never again: put it where the receiver reads it.
      </p>
      <Command text={webhook.secret ?? ""} />
      {webhook.previousSecretUntil !== null && (
        <p class="muted">The old secret signs beside it for a day, so that the receiver can change over.</p>
      )}
      <div class="dialog-actions">
        <button type="button" class="primary" onClick={close}>
          I have kept it
        </button>
      </div>
    </Dialog>
  );
}

export function webhookApi(webhook: string): string {
  return `/webhooks/${encodeURIComponent(webhook)}`;
}
