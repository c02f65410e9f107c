import type { RolloutView } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { request } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { formatCount, formatDuration, formatPercent, plural, words, inLocalTime } from "../lib/format.js";
import { ROLLOUT_KIND } from "../lib/kinds.js";
import {
  ACTION_TITLE,
  type Action,
  actionBody,
  allowedActions,
  consequences,
  currentWave,
  describeTest,
  isSuperseded,
  needsReason,
  worstFirst,
} from "../lib/rollouts.js";
import { notifyDone, notifyError } from "../lib/toast.js";
import { rolloutPath } from "../lib/url.js";
import { Badge, Copy } from "../ui/atoms.js";
import { Dialog } from "../ui/dialog.js";
import { Loaded, Page, Panel, Tile } from "../ui/layout.js";
import { Intervals } from "../ui/share.js";
import { History } from "./rollout-history.js";
import { Superseders, Wave } from "./rollout-parts.js";
import { Settings } from "./rollout-settings.js";

export function RolloutPage({ rollout: id }: { rollout: string }) {
  const rollout = useResource<RolloutView>(`/rollouts/${encodeURIComponent(id)}`, {
    live: ["rollout", "predictions"],
    reloadMinMs: 1_000,
  });
  const [asked, setAsked] = useState<Action | undefined>(undefined);
  const refused = whyNot("operator");
  const { data } = rollout;
  return (
    <Page
      title={data ? data.name || data.title : id}
      name={`Rollout ${id}`}
      parents={[{ title: "Rollouts", href: "/rollouts" }]}
      beside={
        <>
          {data?.name && <span class="muted">{data.title}</span>}
          <code class="muted">{id}</code>
          <Copy text={id} what="rollout id" />
          {data && <Badge kind={ROLLOUT_KIND[data.state]}>{words(data.state)}</Badge>}
        </>
      }
      actions={
        data &&
        allowedActions(data).map((action) => (
          <button
            key={action}
            type="button"
            class={actionClass(action)}
            disabled={refused !== undefined}
            title={refused}
            onClick={() => setAsked(action)}
          >
            {ACTION_TITLE[action]}
          </button>
        ))
      }
    >
      <Loaded from={rollout} rows={8}>
        {(loaded) => <Rollout rollout={loaded} />}
      </Loaded>
      {asked && data && (
        <Confirm
          action={asked}
          rollout={data}
          close={() => setAsked(undefined)}
          done={(next) => rollout.set(next)}
        />
      )}
    </Page>
  );
}

function actionClass(action: Action): string {
  if (action === "abort" || action === "roll_back") return "danger";
  const goesOn: readonly Action[] = ["start", "approve", "approve_wave", "resume"];
  return goesOn.includes(action) ? "primary" : "";
}

function Rollout({ rollout }: { rollout: RolloutView }) {
  const { counts, accuracy, subject, from } = rollout;
  const worst = worstTest(rollout);
  return (
    <>
      <p class="sentence">
        {sentence(rollout)} <Superseded rollout={rollout} />
      </p>
      <div class="tiles">
        <Tile
          title="Active"
          value={
            <>
              {formatCount(counts.active)}
              <small> / {formatCount(counts.total)}</small>
            </>
          }
          note={`${formatCount(counts.updating)} updating, ${formatCount(counts.waiting)} waiting${counts.cancelled > 0 ? `, ${formatCount(counts.cancelled)} cancelled` : ""}`}
        />
        <Tile
          title="Failed or rolled back"
          value={formatCount(counts.failed)}
          note={`at most ${formatPercent(rollout.request.gate.failedShareMax, 0)} of a wave`}
          tone={counts.failed > 0 ? "warn" : undefined}
        />
        <Tile
          title="Silent"
          value={formatCount(counts.silent)}
          note={`nothing heard for ${formatDuration(rollout.request.gate.silenceSeconds * 1000)}`}
          tone={counts.silent > 0 ? "warn" : undefined}
        />
        <Tile
          title="Worst gate test"
          value={worst?.value ?? "–"}
          note={
            worst
              ? worst.title
                ? `${worst.title}, limit ${worst.limit}`
                : "at the last gate"
              : "no gate was judged yet"
          }
        />
        {rollout.controlCount > 0 && (
          <Tile title="Control" value={formatCount(rollout.controlCount)} note="held back for comparison" />
        )}
      </div>
      {subject.kind === "package" && (
        <Panel title="Accuracy from feedback" note="on the devices that run the new version">
          <Intervals
            rows={[
              {
                label: from?.version ? `before, @${from.version}` : "before",
                share: accuracy.before,
                tone: "base",
              },
              { label: `after, @${subject.version}`, share: accuracy.after, tone: "candidate" },
            ]}
          />
        </Panel>
      )}
      <Panel title="Waves">
        <div class="waves">
          {rollout.waves.map((wave) => (
            <Wave key={wave.wave} rollout={rollout.rollout} wave={wave} of={rollout.waves.length} />
          ))}
        </div>
      </Panel>
      <History rollout={rollout.rollout} />
      <Settings rollout={rollout} />
    </>
  );
}

/** What happens now and what comes next, in one sentence. */
function sentence(rollout: RolloutView): string {
  const { title, counts } = rollout;
  const wave = currentWave(rollout);
  const where = wave
    ? `Wave ${wave.wave} of ${rollout.waves.length} is ${words(wave.state)}`
    : "All waves passed";
  const because = rollout.reason ? `: ${rollout.reason}` : "";
  const waits = rollout.waitsFor ? ` It waits for ${inLocalTime(rollout.waitsFor)}.` : "";
  const onFailure = {
    pause: "pauses",
    abort: "is aborted and keeps what is done",
    roll_back: "rolls every device back",
  }[rollout.request.onFailure];
  switch (rollout.state) {
    case "running":
      return `${where}.${waits} If nobody acts, the next wave follows when its gate passes; where it fails, the rollout ${onFailure}.`;
    case "paused":
      return `Paused${because}. Nothing more is offered until somebody ${wave?.state === "failed" ? "retries, aborts" : "resumes, aborts"} or rolls back.`;
    case "succeeded":
      if (isSuperseded(rollout)) return "Done, and no device runs it any longer.";
      return `Done: ${plural(counts.active, "device")} run ${title}${because}.${rollout.current ? " Devices that join get it too." : ""}`;
    case "aborted":
      return isSuperseded(rollout)
        ? `Aborted${because}.`
        : `Aborted${because}. Devices that were done keep ${title}.`;
    case "rolling_back":
      return `Rolling back${because}. Each device that was offered it returns to what it had before.`;
    case "rolled_back":
      return `Rolled back${because}.`;
    case "draft":
    case "scheduled":
      return `Not started: no device was asked yet.${waits}`;
    case "awaiting_approval":
      return `Waits for approval by another person than ${rollout.createdBy}: no device was asked yet.`;
  }
}

/** Whose devices they are now; without one left to another, the rollout that is the target's newest. */
function Superseded({ rollout }: { rollout: RolloutView }) {
  const { superseders, supersededBy } = rollout;
  if (superseders.length > 0) return <Superseders rollout={rollout} />;
  if (supersededBy === null) return null;
  return (
    <>
      <Link href={rolloutPath(supersededBy)}>{supersededBy}</Link> took its place.
    </>
  );
}

function worstTest(rollout: RolloutView) {
  const judged = rollout.waves.findLast((wave) => wave.gate !== null)?.gate;
  const test = judged && worstFirst(judged.tests)[0];
  return test && test.verdict !== "pass"
    ? describeTest(test)
    : judged
      ? { title: "", value: "all passed", limit: "" }
      : undefined;
}

function Confirm({
  action,
  rollout,
  close,
  done,
}: {
  action: Action;
  rollout: RolloutView;
  close: () => void;
  done: (next: RolloutView) => void;
}) {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const next = await request<RolloutView | undefined>(
        `/rollouts/${encodeURIComponent(rollout.rollout)}/actions`,
        { method: "POST", body: actionBody(action, rollout, reason) },
      );
      if (next?.rollout) done(next);
      notifyDone(`${ACTION_TITLE[action]}: done`);
      close();
    } catch (error) {
      notifyError(ACTION_TITLE[action], error);
      setBusy(false);
    }
  };
  return (
    <Dialog title={`${ACTION_TITLE[action]}: ${rollout.title}?`} close={close}>
      <form onSubmit={(event) => void submit(event)}>
        <ul class="consequences">
          {consequences(action, rollout).map((line) => (
            <li key={line}>{line}</li>
          ))}
        </ul>
        <label class="field">
          <span>Reason, for the audit log</span>
          <input
            value={reason}
            maxLength={500}
            minLength={needsReason(action) ? 10 : 0}
            required={needsReason(action)}
            onInput={(event) => setReason(event.currentTarget.value)}
            placeholder={needsReason(action) ? "10 letters or more" : "optional"}
          />
        </label>
        <div class="dialog-actions">
          <button type="button" onClick={close}>
            Keep as it is
          </button>
          <button type="submit" class={actionClass(action) || "primary"} disabled={busy}>
            {ACTION_TITLE[action]}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
