import type { DeviceSummary, Group, Model, RolloutView } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { type ApiError, request, toApiError } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { type DeviceList, fetchDevices } from "../lib/devices.js";
import { plural } from "../lib/format.js";
import { newestFirst } from "../lib/models.js";
import { rolloutPath, useQuery } from "../lib/url.js";
import { Command } from "../ui/atoms.js";
import { Empty, Loaded, Page, Panel, Problem } from "../ui/layout.js";
import { DevicePicker } from "./device-picker.js";
import { Field, NumberField } from "../ui/fields.js";
import { MoreFields, moreOf, NOTHING_MORE, type More } from "./rollout-more.js";

/** Devices that run the model already, every device, chosen ones, or a group. */
const TARGETS = ["model", "all", "choose", "group"] as const;
type Target = (typeof TARGETS)[number];
const PARENTS = [{ title: "Rollouts", href: "/rollouts" }];

export function NewRolloutPage() {
  const models = useResource<{ items: Model[] }>("/models");
  const devices = useResource<DeviceList>("/devices", { fetch: fetchDevices });
  return (
    <Page title="New rollout" parents={PARENTS}>
      <Loaded from={models} rows={6} height={48}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty title="There is no version to roll out">
              <Command text="fieldloop model publish ./FOLDER" />
            </Empty>
          ) : (
            <Loaded from={devices} rows={6} height={48}>
              {(list) => <Form models={items} devices={list} />}
            </Loaded>
          )
        }
      </Loaded>
    </Page>
  );
}

/** `1, 25%, 100%` as the contract's waves; undefined where a part is neither a count nor a percentage. */
export function parseWaves(text: string): ({ count: number } | { percent: number })[] | undefined {
  const parts = text.split(/[\s,]+/).filter(Boolean);
  const waves = parts.map((part) => {
    const value = Number(part.replace(/%$/, ""));
    if (!Number.isFinite(value) || value <= 0) return undefined;
    if (part.endsWith("%")) return value <= 100 ? { percent: value } : undefined;
    return Number.isInteger(value) ? { count: value } : undefined;
  });
  return waves.length > 0 && waves.every((wave) => wave !== undefined)
    ? (waves as ({ count: number } | { percent: number })[])
    : undefined;
}

/** In any of its lanes. */
function runsModel({ running, lanes }: DeviceSummary, model: string): boolean {
  return running?.model === model || lanes.some((lane) => lane.running?.model === model);
}

function Form({ models, devices }: { models: readonly Model[]; devices: DeviceList }) {
  const [query, setQuery] = useQuery();
  const [, navigate] = useLocation();
  const model = models.find((each) => each.model === query.get("model")) ?? models[0]!;
  const versions = newestFirst(model);
  const version = versions.find((each) => String(each.version) === query.get("version")) ?? versions[0]!;
  const groups = useResource<{ items: Group[] }>("/groups");
  const members = {
    model: devices.items
      .filter((device) => !device.suspended && runsModel(device, model.model))
      .map((device) => device.device),
    all: devices.items.filter((device) => !device.suspended).map((device) => device.device),
  };
  const [asked, setTarget] = useState<Target | undefined>(undefined);
  const target = asked ?? (members.model.length > 0 ? "model" : "all");
  const [named, setGroup] = useState("");
  const group = named || (groups.data?.items[0]?.group ?? "");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [waves, setWaves] = useState("1, 100%");
  const [gate, setGate] = useState({
    failedPercentMax: 0,
    soakSeconds: 10,
    predictionsMin: 50,
    accuracyPointsMax: 2,
    latencyRatioMax: 1.25,
    silenceSeconds: 60,
    waveTimeoutSeconds: 600,
  });
  const [probation, setProbation] = useState({ seconds: 10, predictions: 50 });
  const [onFailure, setOnFailure] = useState<"pause" | "abort" | "roll_back">("pause");
  const [more, setMore] = useState<More>(NOTHING_MORE);
  const [forceReason, setForceReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  const refused = whyNot("operator");
  const parsed = parseWaves(waves);
  const ids = target === "choose" ? [...chosen] : target === "group" ? [] : members[target];
  const needsReason = version.evidence !== "passed";
  const missing =
    refused ??
    (!parsed ? "The waves are not readable" : undefined) ??
    (target !== "group" && ids.length === 0 ? "No device is chosen" : undefined) ??
    (target === "group" && !group ? "There is no group" : undefined) ??
    (needsReason && forceReason.trim().length < 10
      ? "A version without a passing evaluation needs a reason of 10 letters or more"
      : undefined);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (missing !== undefined) return;
    setBusy(true);
    setError(undefined);
    try {
      const made = await request<RolloutView>("/rollouts", {
        method: "POST",
        body: {
          change: { kind: "package", model: model.model, version: version.version },
          target: target === "group" ? { group } : { devices: ids },
          waves: parsed,
          gate: {
            failedShareMax: gate.failedPercentMax / 100,
            silenceSeconds: gate.silenceSeconds,
            waveTimeoutSeconds: gate.waveTimeoutSeconds,
            soakSeconds: gate.soakSeconds,
            predictionsMin: gate.predictionsMin,
            accuracyDropMax: gate.accuracyPointsMax / 100,
            latencyRatioMax: gate.latencyRatioMax,
          },
          probation,
          onFailure,
          ...moreOf(more),
          ...(needsReason ? { forceReason: forceReason.trim() } : {}),
        },
      });
      navigate(rolloutPath(made.rollout));
    } catch (problem) {
      setError(toApiError(problem));
      setBusy(false);
    }
  };
  const bound = (name: keyof typeof gate) => ({
    value: gate[name],
    change: (value: number) => setGate({ ...gate, [name]: value }),
  });
  return (
    <form class="form" onSubmit={(event) => void submit(event)}>
      {error && <Problem error={error} />}
      <Panel title="Version">
        <div class="field-row">
          <Field label="Model">
            <select
              value={model.model}
              onChange={(event) => setQuery({ model: event.currentTarget.value, version: undefined })}
            >
              {models.map((each) => (
                <option key={each.model}>{each.model}</option>
              ))}
            </select>
          </Field>
          <Field label="Version" wide>
            <select
              value={String(version.version)}
              onChange={(event) => setQuery({ model: model.model, version: event.currentTarget.value })}
            >
              {versions.map((each) => (
                <option key={each.version} value={String(each.version)}>
                  @{each.version} ·{" "}
                  {each.evidence === "none" ? "not evaluated" : `evaluation ${each.evidence}`} · runs on{" "}
                  {each.runningOn}
                </option>
              ))}
            </select>
          </Field>
        </div>
        {needsReason && (
          <Field
            label={`Why without a passing evaluation? (@${version.version}: ${version.evidence === "none" ? "not evaluated" : "failed"})`}
          >
            <input
              value={forceReason}
              minLength={10}
              maxLength={500}
              onInput={(event) => setForceReason(event.currentTarget.value)}
              placeholder="Written into the audit log"
            />
          </Field>
        )}
      </Panel>
      <Panel title="Devices and waves">
        <fieldset class="segments" aria-label="Target">
          {TARGETS.map((each) => (
            <button
              key={each}
              type="button"
              aria-pressed={target === each}
              disabled={(each === "model" || each === "all") && members[each].length === 0}
              onClick={() => setTarget(each)}
            >
              {
                {
                  model: `Runs ${model.model}: ${members.model.length}`,
                  all: `All ${plural(members.all.length, "device")}`,
                  choose: "Choose devices",
                  group: "A group",
                }[each]
              }
            </button>
          ))}
        </fieldset>
        {target === "choose" && <DevicePicker devices={devices.items} chosen={chosen} change={setChosen} />}
        {target === "group" && (
          <Field label="Group">
            <select value={group} onChange={(event) => setGroup(event.currentTarget.value)}>
              {(groups.data?.items ?? []).map((each) => (
                <option key={each.group}>{each.group}</option>
              ))}
            </select>
          </Field>
        )}
        <Field
          label="Waves: counts or cumulative percentages; the last must reach everyone"
          note={
            parsed
              ? `${plural(parsed.length, "wave")}${target === "group" ? "" : ` over ${plural(ids.length, "device")}`}`
              : "write for example 1, 25%, 100%"
          }
        >
          <input
            value={waves}
            onInput={(event) => setWaves(event.currentTarget.value)}
            aria-invalid={parsed === undefined}
          />
        </Field>
      </Panel>
      <Panel title="Gate after each wave">
        <div class="field-row">
          <NumberField
            label="Failed devices, at most"
            unit="%"
            min={0}
            max={100}
            {...bound("failedPercentMax")}
          />
          <NumberField
            label="Drop in accuracy, at most"
            unit="points"
            min={0}
            max={100}
            step={0.1}
            {...bound("accuracyPointsMax")}
          />
          <NumberField
            label="Latency, at most"
            unit="× before"
            min={0.05}
            step={0.05}
            {...bound("latencyRatioMax")}
          />
          <NumberField label="Soak" unit="s" min={0} {...bound("soakSeconds")} />
          <NumberField label="Predictions a device, at least" unit="" min={0} {...bound("predictionsMin")} />
          <NumberField label="Silent after" unit="s" min={1} {...bound("silenceSeconds")} />
          <NumberField label="Wave timeout" unit="s" min={1} {...bound("waveTimeoutSeconds")} />
        </div>
        <div class="field-row">
          <Field label="Where the gate fails" wide>
            <select
              value={onFailure}
              onChange={(event) => setOnFailure(event.currentTarget.value as typeof onFailure)}
            >
              <option value="pause">Pause and wait for a person</option>
              <option value="abort">Abort, keep what is done</option>
              <option value="roll_back">Roll every device back</option>
            </select>
          </Field>
          <NumberField
            label="Probation on the device"
            unit="s"
            min={0}
            value={probation.seconds}
            change={(seconds) => setProbation({ ...probation, seconds })}
          />
          <NumberField
            label="and predictions"
            unit=""
            min={0}
            value={probation.predictions}
            change={(predictions) => setProbation({ ...probation, predictions })}
          />
        </div>
      </Panel>
      <MoreFields more={more} change={setMore} />
      <div class="form-actions">
        {missing && <span class="muted">{missing}</span>}
        <button type="submit" class="primary" disabled={busy || missing !== undefined} title={missing}>
          {more.approval ? "Ask for approval" : "Start the rollout"}
        </button>
      </div>
    </form>
  );
}
