import {
  FieldloopError,
  formatModelVersion,
  type RolloutRequest,
  type RolloutSubject,
} from "@fieldloop/protocol";
import { configIdOf } from "../domain/config-id.js";
import type { Fleet, FleetDevice } from "../domain/fleet.js";
import { EVERY_DEVICE, targetTest } from "../domain/groups.js";
import { previousOf } from "../domain/rollout-reports.js";
import type { RolloutRecord } from "../domain/rollout.js";
import type { StoredVersion } from "../store/registry.js";

export interface CreateSources {
  readonly fleet: Fleet;
  readonly registry: {
    /** @throws FieldloopError `version_awaiting_signature` for one that no device would install */
    requireSigned(model: string, version: number): Promise<StoredVersion>;
    letThrough(model: string, version: number, reason: string): Promise<void>;
    evidence(model: string, version: number): Promise<"none" | "passed" | "failed">;
  };
}

/** What a request means, checked: @throws FieldloopError `not_found`, `invalid_argument`, `rollout_needs_evidence`, `version_awaiting_signature` */
export async function resolveRequest(
  request: RolloutRequest,
  { fleet, registry }: CreateSources,
): Promise<{
  subject: RolloutSubject;
  target: FleetDevice[];
  from: RolloutRecord["from"];
  evidence: string;
}> {
  const { change } = request;
  if (change.kind === "config" && request.shadow)
    throw new FieldloopError("invalid_argument", "Create rollout: a configuration cannot run in shadow");
  if (change.kind === "config") {
    const target = resolveTarget(request, fleet);
    const subject: RolloutSubject = {
      kind: "config",
      configId: configIdOf(change.policy),
      policy: change.policy,
    };
    return { subject, target, from: fromOf(target, subject), evidence: "none" };
  }
  const { model, version } = change;
  const { packageSha256 } = await registry.requireSigned(model, version);
  const evidence = await registry.evidence(model, version);
  if (evidence !== "passed" && request.forceReason === undefined) {
    throw new FieldloopError(
      "rollout_needs_evidence",
      `Create rollout of "${formatModelVersion(model, version)}": its evidence is "${evidence}"; evaluate it, or say why not (forceReason, on the command line --force)`,
    );
  }
  const target = resolveTarget(request, fleet);
  const subject: RolloutSubject = { kind: "package", model, version, packageSha256 };
  if (request.forceReason === undefined) refuseOtherModels(target, model);
  return { subject, target, from: fromOf(target, subject), evidence };
}

function resolveTarget({ target }: RolloutRequest, fleet: Fleet): FleetDevice[] {
  if ("devices" in target) {
    const unknown = target.devices.find((device) => !fleet.get(device));
    if (unknown !== undefined)
      throw new FieldloopError("not_found", `Create rollout: there is no device "${unknown}"`);
  }
  if ("group" in target && target.group !== EVERY_DEVICE && !fleet.groups.has(target.group))
    throw new FieldloopError("not_found", `Find group: there is no "${target.group}"`);
  const found = [...fleet.all()].filter(targetTest(target, fleet.groups));
  if (found.length === 0)
    throw new FieldloopError("invalid_argument", "Create rollout: the target holds no device");
  return found;
}

function refuseOtherModels(target: readonly FleetDevice[], model: string): void {
  for (const device of target) {
    const running = device.runningOf(model);
    if (!running || running.model === model) continue;
    throw new FieldloopError(
      "invalid_argument",
      `Create rollout of "${model}": device "${device.device}" runs "${running.model}"; leave it out, or say why (forceReason, on the command line --force)`,
    );
  }
}

/** What the target has, where it is the same for all that have something. */
function fromOf(target: readonly FleetDevice[], subject: RolloutSubject): RolloutRecord["from"] {
  const found = new Map<string, NonNullable<RolloutRecord["from"]>>();
  for (const device of target) {
    const previous = previousOf(device, subject);
    if (previous?.kind === "config")
      found.set(`config ${previous.configId}`, { version: null, configId: previous.configId });
    else if (previous && subject.kind === "package" && previous.model === subject.model)
      found.set(String(previous.version), { version: previous.version, configId: null });
  }
  return found.size === 1 ? [...found.values()][0]! : null;
}
