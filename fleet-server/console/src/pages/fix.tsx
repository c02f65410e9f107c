import type {
  Dataset,
  Model,
  SampleView,
  Snapshot,
  TrainingRun,
  TrainingSettings,
} from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { type ApiError, request, toApiError } from "../api/client.js";
import { formatCount } from "../lib/format.js";
import { mainVersion, newestFirst } from "../lib/models.js";
import { runPath } from "../lib/url.js";
import { Dialog } from "../ui/dialog.js";
import { Field, NumberField } from "../ui/fields.js";
import { Problem } from "../ui/layout.js";

interface FixProps {
  models: readonly Model[];
  from: SampleView | undefined;
  query: URLSearchParams;
  close: () => void;
}

type Settings = Pick<TrainingSettings, "trainable" | "steps" | "batch" | "rate" | "replayShare">;
const STEPS = ["Naming the dataset", "Freezing a snapshot", "Starting the training run"] as const;

/** From labels to a training run: a dataset over the labelled samples, its snapshot, and a run from the version that failed. */
export function FixDialog({ models, from, query, close }: FixProps) {
  const [, navigate] = useLocation();
  const [name, setName] = useState(query.get("model") ?? from?.model ?? "");
  // Samples may be of a model that is not published here: then the first one that is.
  const model = models.find((each) => each.model === name) ?? models[0];
  const [base, setBase] = useState(model ? mainVersion(model)?.version : undefined);
  const [feedback, setFeedback] = useState(false);
  const device = query.get("device");
  const [narrow, setNarrow] = useState(device !== null);
  const [settings, setSettings] = useState<Settings>({
    trainable: "all",
    steps: 600,
    batch: 32,
    rate: 0.001,
    replayShare: 0.5,
  });
  const [step, setStep] = useState(-1);
  const [frozen, setFrozen] = useState<Snapshot | undefined>(undefined);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  const busy = step >= 0 && !error;

  const submit = async (event: Event) => {
    event.preventDefault();
    if (!model || base === undefined) return;
    setError(undefined);
    try {
      setStep(0);
      const dataset = await request<Dataset>("/datasets", {
        method: "POST",
        body: {
          name: `fix ${model.model} ${new Date().toISOString().slice(0, 19)}Z`,
          model: model.model,
          query: { labelled: !feedback, ...(narrow && device ? { devices: [device] } : {}) },
        },
      });
      setStep(1);
      const snapshot = await request<Snapshot>(`/datasets/${encodeURIComponent(dataset.dataset)}/snapshots`, {
        method: "POST",
        body: {},
      });
      setFrozen(snapshot);
      setStep(2);
      const run = await request<TrainingRun>("/training-runs", {
        method: "POST",
        body: { model: model.model, baseVersion: base, snapshot: snapshot.snapshot, settings },
      });
      navigate(runPath(run.run));
    } catch (problem) {
      setError(toApiError(problem));
    }
  };
  return (
    <Dialog title="Fix this" close={close}>
      <form onSubmit={(event) => void submit(event)}>
        <p class="muted">
          Freezes the labelled samples and trains a candidate from the version below. The candidate is
          evaluated against it before anybody can roll it out.
        </p>
        <div class="field-row">
          <Field label="Model">
            <select
              value={model?.model ?? ""}
              onChange={(event) => {
                const next = models.find((each) => each.model === event.currentTarget.value);
                setName(event.currentTarget.value);
                setBase(next && mainVersion(next)?.version);
              }}
            >
              {models.map((each) => (
                <option key={each.model}>{each.model}</option>
              ))}
            </select>
          </Field>
          <Field label="Train from">
            <select value={String(base)} onChange={(event) => setBase(Number(event.currentTarget.value))}>
              {model &&
                newestFirst(model).map((version) => (
                  <option key={version.version} value={String(version.version)}>
                    @{version.version} · runs on {formatCount(version.runningOn)}
                  </option>
                ))}
            </select>
          </Field>
        </div>
        <label class="check">
          <input
            type="checkbox"
            checked={feedback}
            onChange={(event) => setFeedback(event.currentTarget.checked)}
          />
          Use labels from the application’s feedback too
        </label>
        {device && (
          <label class="check">
            <input
              type="checkbox"
              checked={narrow}
              onChange={(event) => setNarrow(event.currentTarget.checked)}
            />
            Only samples of {device}
          </label>
        )}
        <details>
          <summary>Training settings</summary>
          <div class="field-row">
            <Field label="Trained parts">
              <select
                value={settings.trainable}
                onChange={(event) =>
                  setSettings({ ...settings, trainable: event.currentTarget.value as Settings["trainable"] })
                }
              >
                <option value="all">the whole network</option>
                <option value="last">the last block</option>
                <option value="head">the head only</option>
              </select>
            </Field>
            <NumberField
              label="Steps"
              unit=""
              min={1}
              max={100_000}
              value={settings.steps}
              change={(steps) => setSettings({ ...settings, steps })}
            />
            <NumberField
              label="Batch"
              unit="inputs"
              min={1}
              max={512}
              value={settings.batch}
              change={(batch) => setSettings({ ...settings, batch })}
            />
            <NumberField
              label="Learning rate"
              unit=""
              min={0.000_001}
              max={1}
              step={0.000_001}
              value={settings.rate}
              change={(rate) => setSettings({ ...settings, rate })}
            />
            <NumberField
              label="Old data in each batch"
              unit="%"
              min={0}
              max={90}
              value={Math.round(settings.replayShare * 100)}
              change={(percent) => setSettings({ ...settings, replayShare: percent / 100 })}
            />
          </div>
        </details>
        {busy && (
          <p role="status" class="muted">
            {STEPS[step]}…
          </p>
        )}
        {frozen && (
          <p class="muted">
            Snapshot of {formatCount(frozen.sampleCount)} samples:{" "}
            {Object.entries(frozen.labels)
              .map(([label, count]) => `${label} ${formatCount(count)}`)
              .join(", ")}
          </p>
        )}
        {error && <Problem error={error} />}
        <div class="dialog-actions">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={busy || !model || base === undefined}>
            Train a candidate
          </button>
        </div>
      </form>
    </Dialog>
  );
}
