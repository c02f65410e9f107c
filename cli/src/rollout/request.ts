import { FieldloopError } from "@fieldloop/protocol";
import { readModelVersion } from "../commands/fleet-options.js";
import { isBody, type Body } from "./body.js";
import type { CreateOptions } from "./options.js";

/**
 * What `rollout create` asks for: its options over the request that `--from` gave.
 * @throws FieldloopError `invalid_argument` where the call does not say one change and one target, or an option would say nothing
 */
export function requestOf(version: string | undefined, options: CreateOptions, from: Body = {}): Body {
  const request = over(from, {
    change: changeOf(version, options, from),
    name: options.name,
    target: targetOf(options, from),
    waves: wavesOf(options, from),
    control: options.control,
    gate: within(from, "gate", {
      failedShareMax: options.failedShare,
      soakSeconds: options.soak,
      silenceSeconds: options.silence,
      waveTimeoutSeconds: options.timeout,
      predictionsMin: options.predictions,
      accuracyDropMax: options.accuracyDrop,
      latencyRatioMax: options.latencyRatio,
      shadowLabelsMin: options.shadowLabels,
    }),
    onFailure: options.onFailure,
    budgets: options.budget,
    schedule: within(from, "schedule", {
      startAt: options.at,
      windows: options.window?.length ? options.window : undefined,
    }),
    offersPerMinute: options.rate,
    priority: options.priority,
    approval: options.approval ? { required: true } : undefined,
    shadow: within(
      from,
      "shadow",
      { seconds: options.shadow, predictions: options.shadowPredictions, cpuShareMax: options.shadowCpu },
      { seconds: 0, predictions: 0 },
    ),
    probation: within(from, "probation", { seconds: options.probation }, { predictions: 0 }),
    retries: within(from, "retries", { max: options.retries }),
    forceReason: options.force,
    start: options.draft ? false : undefined,
  });
  refuseIdle(options, from, request);
  return request;
}

/** What is given takes the place of what was there. */
function over(before: Body, given: Body): Body {
  return {
    ...before,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
}

/** The same in one part; undefined where no option speaks of it. `fresh` is what the part is without `--from`. */
function within(from: Body, name: string, given: Body, fresh: Body = {}): Body | undefined {
  if (Object.values(given).every((value) => value === undefined)) return undefined;
  const part = from[name];
  return over(isBody(part) ? part : fresh, given);
}

function changeOf(version: string | undefined, { config }: CreateOptions, from: Body): Body | undefined {
  const isGiven = version !== undefined || config !== undefined;
  if ((version !== undefined && config !== undefined) || (!isGiven && from["change"] === undefined))
    throw new FieldloopError(
      "invalid_argument",
      "Create rollout: give either MODEL@VERSION or --config, or a `change` with --from",
    );
  if (config !== undefined) return { kind: "config", policy: config };
  return version === undefined ? undefined : { kind: "package", ...readModelVersion(version) };
}

/** An approval that belongs to no wave would be one that nobody gives. */
function wavesOf({ waves, approveWaves = [] }: CreateOptions, from: Body): unknown[] | undefined {
  if (approveWaves.length === 0) return waves;
  const known = waves ?? (Array.isArray(from["waves"]) ? (from["waves"] as unknown[]) : []);
  const beyond = approveWaves.find((wave) => wave > known.length);
  if (beyond !== undefined) {
    const has = known.length === 0 ? "none (give it as well)" : String(known.length);
    const where = waves === undefined && known.length > 0 ? "--from" : "--waves";
    throw new FieldloopError(
      "invalid_argument",
      `Create rollout: --approve-waves names wave ${beyond}, ${where} has ${has}`,
    );
  }
  return known.map((wave, at) =>
    approveWaves.includes(at + 1) && isBody(wave) ? { ...wave, approvalBefore: true } : wave,
  );
}

function targetOf({ devices, group, select, frozen }: CreateOptions, from: Body): unknown {
  const given: Body[] = [
    ...(devices ? [{ devices }] : []),
    ...(group === undefined ? [] : [{ group }]),
    ...(select ? [{ selector: { tags: select } }] : []),
  ];
  const target = given[0] ?? from["target"];
  if (given.length > 1 || target === undefined)
    throw new FieldloopError(
      "invalid_argument",
      "Create rollout: give one of --devices, --group and --select, or a `target` with --from",
    );
  return frozen && isBody(target) ? { ...target, membership: "frozen" } : given[0];
}

/** Options that say something about what is not there would be heeded by nobody. */
function refuseIdle(options: CreateOptions, from: Body, request: Body): void {
  const { target, change } = request;
  const hasShadow =
    options.shadow !== undefined || options.shadowPredictions !== undefined || isBody(from["shadow"]);
  const wantsShadow = "there is no shadow; give --shadow or --shadow-predictions as well";
  const idle: readonly (readonly [option: string, isIdle: boolean, why: string])[] = [
    ["--shadow-cpu", options.shadowCpu !== undefined && !hasShadow, wantsShadow],
    ["--shadow-labels", options.shadowLabels !== undefined && !hasShadow, wantsShadow],
    [
      "--frozen",
      options.frozen === true && isBody(target) && "devices" in target,
      "devices that are named are the same for ever; it is for --group and --select",
    ],
    [
      "--probation",
      options.probation !== undefined && isBody(change) && change["kind"] === "config",
      "a configuration has no probation; it is for MODEL@VERSION",
    ],
  ];
  for (const [option, isIdle, why] of idle)
    if (isIdle) throw new FieldloopError("invalid_argument", `Create rollout: ${option}: ${why}`);
}
