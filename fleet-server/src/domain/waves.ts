import {
  FieldloopError,
  sha256Hex,
  type ControlRequest,
  type RolloutRequest,
  type WaveRequest,
} from "@fieldloop/protocol";
import { fitsSelector, type SelectableDevice } from "./groups.js";
import { newRolloutDevice, newRolloutWave, type RolloutDevice, type RolloutWave } from "./rollout.js";

export interface Plan {
  readonly waves: RolloutWave[];
  readonly devices: RolloutDevice[];
}

/**
 * Divides the target into waves. The control group is drawn first, by chance, from devices that no wave names, and gets a wave of its
 * own behind all others. Named and selected devices go where they are named; the rest follows in an order that is random in the
 * rollout's id (so that the same device is not the canary of every rollout) and the same at every call.
 * @returns every target in one wave; waves that would be empty are left out, and an approval before one of them is wanted before the next
 * @throws FieldloopError `invalid_argument` where a wave names a device outside the target or the last wave does not reach everyone
 */
export function planWaves(
  rollout: string,
  target: readonly SelectableDevice[],
  request: Pick<RolloutRequest, "waves" | "control">,
): Plan {
  const byId = new Map(target.map((device) => [device.device, device]));
  const named = namedDevices(request.waves, byId);
  const order = shuffled(rollout, [...byId.keys()]);
  const control = drawControl(request.control, order, named);
  const rest = new Map(order.filter((id) => !control.has(id)).map((id) => [id, byId.get(id)!]));
  const count = rest.size;
  const planned = request.waves.map((plan) => {
    const taken = takeWave(plan, count, rest, named);
    for (const id of taken) rest.delete(id);
    return { plan: plan as WaveRequest | null, taken };
  });
  if (rest.size > 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Plan waves: the last wave leaves ${rest.size} of ${target.length} devices out; end with {"percent": 100}`,
    );
  }
  const last = planned.at(-1)!;
  if (control.size > 0) planned.push({ plan: null, taken: [...control] });
  const kept = withoutEmpty(planned);
  // Nobody is there yet: who joins comes into the last wave.
  return build(kept.length > 0 ? kept : [last]);
}

interface PlannedWave {
  readonly plan: WaveRequest | null;
  readonly taken: readonly string[];
}

function withoutEmpty(planned: readonly PlannedWave[]): PlannedWave[] {
  const kept: PlannedWave[] = [];
  let approvalBefore = false;
  for (const { plan, taken } of planned) {
    approvalBefore ||= plan?.approvalBefore === true;
    if (taken.length === 0 && !isOpenPlan(plan)) continue;
    kept.push({ plan: plan && approvalBefore ? { ...plan, approvalBefore } : plan, taken });
    approvalBefore = false;
  }
  return kept;
}

/** A selector's wave may be empty now and hold devices later. */
function isOpenPlan(plan: WaveRequest | null): boolean {
  return plan !== null && "selector" in plan;
}

function build(planned: readonly PlannedWave[]): Plan {
  let position = 0;
  const devices = planned.flatMap(({ plan, taken }, at) =>
    taken.map((device) =>
      newRolloutDevice(device, {
        wave: at + 1,
        position: position++,
        control: plan === null,
        joined: false,
      }),
    ),
  );
  return { waves: planned.map(({ plan }, at) => newRolloutWave(at + 1, plan)), devices };
}

/** Devices that waves ask for by name or selector: they are nobody's by chance until their wave. */
function namedDevices(
  waves: readonly WaveRequest[],
  byId: ReadonlyMap<string, SelectableDevice>,
): ReadonlySet<string> {
  const named = new Set<string>();
  for (const wave of waves) {
    if ("devices" in wave) {
      for (const device of wave.devices) {
        if (!byId.has(device)) {
          throw new FieldloopError(
            "invalid_argument",
            `Plan waves: device "${device}" is not in the rollout's target`,
          );
        }
        named.add(device);
      }
    } else if ("selector" in wave) {
      for (const device of byId.values()) if (fitsSelector(wave.selector, device)) named.add(device.device);
    }
  }
  return named;
}

/** A share is rounded down: of a handful of devices nobody is held back. */
function drawControl(
  control: ControlRequest | null,
  order: readonly string[],
  named: ReadonlySet<string>,
): ReadonlySet<string> {
  if (!control) return new Set();
  const wanted = "count" in control ? control.count : Math.floor(order.length * control.share);
  const free = order.filter((id) => !named.has(id));
  // Somebody must be left to be the canary.
  const most = named.size > 0 ? free.length : free.length - 1;
  return new Set(free.slice(0, Math.max(0, Math.min(wanted, most))));
}

function takeWave(
  plan: WaveRequest,
  count: number,
  rest: ReadonlyMap<string, SelectableDevice>,
  named: ReadonlySet<string>,
): string[] {
  if ("devices" in plan) return [...new Set(plan.devices)].filter((device) => rest.has(device));
  if ("selector" in plan)
    return [...rest.values()]
      .filter((device) => fitsSelector(plan.selector, device))
      .map(({ device }) => device);
  const wanted = "count" in plan ? plan.count : Math.ceil((count * plan.percent) / 100) - (count - rest.size);
  // A device that a later wave names waits for it, unless this wave is to reach everyone.
  const everyone = wanted >= rest.size;
  return [...rest.keys()].filter((device) => everyone || !named.has(device)).slice(0, Math.max(0, wanted));
}

/**
 * Where a device that joins later belongs, had it been there from the start: the wave that names or selects it, else by its place in
 * the random order the wave whose share reaches that far. Where that wave has gone on already, the next that is still to come; where
 * none is, the last.
 */
export function waveOfJoined(
  rollout: string,
  device: SelectableDevice,
  waves: readonly RolloutWave[],
): RolloutWave {
  const open = waves.filter(({ plan }) => plan !== null);
  const wanted = open.findIndex(({ plan }) => reaches(plan!, rollout, device));
  const from = wanted === -1 ? open.slice(-1) : open.slice(wanted);
  return from.find(({ state }) => state === "pending" || state === "running") ?? from.at(-1) ?? waves.at(-1)!;
}

function reaches(plan: WaveRequest, rollout: string, device: SelectableDevice): boolean {
  if ("devices" in plan) return plan.devices.includes(device.device);
  if ("selector" in plan) return fitsSelector(plan.selector, device);
  // A wave of so many devices is full.
  return "percent" in plan && shareOf(rollout, device.device) * 100 < plan.percent;
}

const RANK_DIGITS = 12;

/** Its place in the random order of all devices that there could be, 0..1. */
function shareOf(rollout: string, device: string): number {
  return Number.parseInt(rankOf(rollout, device).slice(0, RANK_DIGITS), 16) / 16 ** RANK_DIGITS;
}

function rankOf(seed: string, device: string): string {
  return sha256Hex(new TextEncoder().encode(`${seed}\n${device}`));
}

function shuffled(seed: string, devices: readonly string[]): string[] {
  return devices
    .map((device) => ({ device, rank: rankOf(seed, device) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ device }) => device);
}
