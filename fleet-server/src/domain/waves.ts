import { FieldloopError, sha256Hex, type RolloutRequest } from "@fieldloop/protocol";

/**
 * Divides the target into waves. Named devices go where they are named; the rest follows in an order that is random in the
 * rollout's id (so that the same device is not the canary of every rollout) and the same at every call.
 * @returns the devices of each wave; waves that would be empty are left out, and together they hold every target once
 * @throws FieldloopError `invalid_argument` where a wave names a device outside the target or the last wave does not reach everyone
 */
export function planWaves(
  rollout: string,
  target: readonly string[],
  waves: RolloutRequest["waves"],
): string[][] {
  const rest = new Set(shuffled(rollout, target));
  const named = new Set(waves.flatMap((wave) => ("devices" in wave ? wave.devices : [])));
  for (const device of named) {
    if (!rest.has(device)) {
      throw new FieldloopError(
        "invalid_argument",
        `Plan waves: device "${device}" is not in the rollout's target`,
      );
    }
  }
  const planned = waves.map((wave) => {
    const taken = takeWave(wave, target.length, rest, named);
    for (const device of taken) rest.delete(device);
    return taken;
  });
  if (rest.size > 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Plan waves: the last wave leaves ${rest.size} of ${target.length} devices out; end with {"percent": 100}`,
    );
  }
  return planned.filter((wave) => wave.length > 0);
}

function takeWave(
  wave: RolloutRequest["waves"][number],
  targetCount: number,
  rest: ReadonlySet<string>,
  named: ReadonlySet<string>,
): string[] {
  if ("devices" in wave)
    return wave.devices.filter((device, at) => rest.has(device) && wave.devices.indexOf(device) === at);
  const wanted =
    "count" in wave ? wave.count : Math.ceil((targetCount * wave.percent) / 100) - (targetCount - rest.size);
  // A device that a later wave names waits for it, unless this wave is to reach everyone.
  const everyone = wanted >= rest.size;
  return [...rest].filter((device) => everyone || !named.has(device)).slice(0, Math.max(0, wanted));
}

function shuffled(seed: string, devices: readonly string[]): string[] {
  const encoder = new TextEncoder();
  return [...new Set(devices)]
    .map((device) => ({ device, rank: sha256Hex(encoder.encode(`${seed}\n${device}`)) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ device }) => device);
}
