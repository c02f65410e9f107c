import type { RolloutView } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { request } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { formatCount, formatDuration, formatPercent, plural, words } from "../lib/format.js";
import { ROLLOUT_KIND } from "../lib/kinds.js";
import {
  ACTION_TITLE,
  type Action,
  allowedActions,
  consequences,
  countDevices,
  currentWave,
  describeTest,
  fromTitle,
  worstFirst,
} from "../lib/rollouts.js";
import { notifyDone, notifyError } from "../lib/toast.js";
import { versionPath } from "../lib/url.js";
import { Badge, Copy, Hash, Time } from "../ui/atoms.js";
import { Dialog } from "../ui/dialog.js";
import { Facts, Loaded, Page, Panel, Tile } from "../ui/layout.js";
import { Intervals } from "../ui/share.js";
import { Wave } from "./rollout-parts.js";

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
      title={data ? data.title : id}
      name={`Rollout ${id}`}
      parents={[{ title: "Rollouts", href: "/rollouts" }]}
      beside={
        <>
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
  return action === "start" || action === "approve" || action === "resume" ? "primary" : "";
}

function Rollout({ rollout }: { rollout: RolloutView }) {
  const counts = countDevices(rollout.waves);
  const { before, after } = rollout.accuracy;
  const worst = worstTest(rollout);
  return (
    <>
      <p class="sentence">{sentence(rollout)}</p>
      <div class="tiles">
        <Tile
          title="Active"
          value={
            <>
              {formatCount(counts.active)}
              <small> / {formatCount(counts.total)}</small>
            </>
          }
          note={`${formatCount(counts.moving)} updating, ${formatCount(counts.waiting)} waiting`}
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
      </div>
      <Panel title="Accuracy from feedback" note="on the devices that run the new version">
        <Intervals
          rows={[
            {
              label: labelBefore(rollout),
              share: before,
              tone: "base",
            },
            { label: `after, ${rollout.title}`, share: after, tone: "candidate" },
          ]}
        />
      </Panel>
      <Panel title="Waves">
        <div class="waves">
          {rollout.waves.map((wave) => (
            <Wave key={wave.wave} rollout={rollout.rollout} wave={wave} of={rollout.waves.length} />
          ))}
        </div>
      </Panel>
      <Settings rollout={rollout} />
    </>
  );
}

function labelBefore(rollout: RolloutView): string {
  const from = fromTitle(rollout);
  return from === undefined ? "before" : `before, ${from}`;
}

/** What happens now and what comes next, in one sentence. */
function sentence(rollout: RolloutView): string {
  const wave = currentWave(rollout);
  const where = wave
    ? `Wave ${wave.wave} of ${rollout.waves.length} is ${words(wave.state)}`
    : "All waves passed";
  const because = rollout.reason ? `: ${rollout.reason}` : "";
  const onFailure = {
    pause: "pauses",
    abort: "is aborted and keeps what is done",
    roll_back: "rolls every device back",
  }[rollout.request.onFailure];
  switch (rollout.state) {
    case "running":
      return `${where}${rollout.waitsFor ? `, waits for ${rollout.waitsFor}` : ""}. If nobody acts, the next wave follows when its gate passes; where it fails, the rollout ${onFailure}.`;
    case "paused":
      return `Paused${because}. Nothing more is offered until somebody ${wave?.state === "failed" ? "aborts" : "resumes, aborts"} or rolls back.`;
    case "succeeded":
      return `Done: ${plural(countDevices(rollout.waves).active, "device")} run ${rollout.title}${because}.`;
    case "aborted":
      return `Aborted${because}. Devices that were done keep ${rollout.title}.`;
    case "rolling_back":
      return `Rolling back${because}. Each device that was offered the version returns to what it ran before.`;
    case "rolled_back":
      return `Rolled back${because}.`;
    case "draft":
    case "scheduled":
      return "Not started: no device was asked yet.";
    case "awaiting_approval":
      return "Waits for approval: no device was asked yet.";
  }
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

function Settings({ rollout }: { rollout: RolloutView }) {
  const { gate, probation, onFailure, forceReason, offersPerMinute } = rollout.request;
  return (
    <Panel title="Settings">
      <Facts
        rows={[
          [
            "Version",
            <span key="version">
              {rollout.subject.kind === "package" ? (
                <>
                  <Link href={versionPath(rollout.subject.model, rollout.subject.version)}>
                    {rollout.title}
                  </Link>{" "}
                  <Hash value={rollout.subject.packageSha256} copy />
                </>
              ) : (
                <code>{JSON.stringify(rollout.subject.policy)}</code>
              )}
            </span>,
          ],
          [
            "Where a gate fails",
            { pause: "pause", abort: "abort and keep", roll_back: "roll every device back" }[onFailure],
          ],
          [
            "Failed share",
            `at most ${formatPercent(gate.failedShareMax, 0)} of a wave; silence for ${formatDuration(gate.silenceSeconds * 1000)} counts`,
          ],
          [
            "Soak",
            `${formatDuration(gate.soakSeconds * 1000)} after the last device, at least ${plural(gate.predictionsMin, "prediction")} each`,
          ],
          [
            "Accuracy",
            gate.accuracyDropMax === null
              ? "not looked at"
              : `may drop by ${(gate.accuracyDropMax * 100).toFixed(1)} points`,
          ],
          [
            "Latency",
            gate.latencyRatioMax === null ? "not looked at" : `at most × ${gate.latencyRatioMax} of before`,
          ],
          ["Wave timeout", formatDuration(gate.waveTimeoutSeconds * 1000)],
          [
            "Probation on the device",
            `${formatDuration(probation.seconds * 1000)} and ${plural(probation.predictions, "prediction")}`,
          ],
          ["Offers", `at most ${formatCount(offersPerMinute)} a minute`],
          ...(forceReason ? [["Forced without evidence", forceReason] as const] : []),
          ["Created", <Time at={rollout.created} key="created" />],
          ["Finished", <Time at={rollout.finished} none="not yet" key="finished" />],
        ]}
      />
    </Panel>
  );
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
        { method: "POST", body: { action, reason } },
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
    <Dialog title={`${ACTION_TITLE[action]} ${rollout.title}?`} close={close}>
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
            onInput={(event) => setReason(event.currentTarget.value)}
            placeholder="optional"
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
