import {
  isFinal,
  ROLLOUT,
  type Page,
  type RolloutDeviceView,
  type RolloutView,
  type ShadowView,
  type WaveView,
} from "@fieldloop/protocol";
import { countsText } from "../rollout/draw.js";
import { CHANGED_CAMERAS, DEMO_DEVICES, type DemoFleet } from "./fleet.js";
import { percent } from "./measure.js";
import type { Narrator } from "./narrator.js";
import { DEMO_TIMES } from "./options.js";
import { until } from "./until.js";

/** What the candidate's shadow on the canary came to. */
export interface ShadowFigures {
  readonly compared: number;
  readonly disagreements: number;
}

export interface RolledOut {
  readonly rollout: RolloutView;
  readonly shadow: ShadowFigures;
}

/** Ships a version to the cameras: shadow beside the running one, self test, probation, a gate after each wave. */
export async function rollOut(fleet: DemoFleet, narrator: Narrator, version: number): Promise<RolledOut> {
  const { client } = fleet;
  const cameras = DEMO_DEVICES.filter((device) => device.model === "parts").map((device) => device.device);
  const created = await client.post<RolloutView>("/api/v1/rollouts", {
    change: { kind: "package", model: "parts", version },
    name: "dim light, oily lens",
    target: { devices: cameras },
    waves: [{ name: "canary", devices: [CHANGED_CAMERAS[0]] }, { percent: 100 }],
    shadow: { seconds: 6, predictions: 60, cpuShareMax: 0.5 },
    gate: { soakSeconds: 10, predictionsMin: 60 },
    probation: { seconds: 5, predictions: 50 },
    onFailure: "roll_back",
  });
  const teller = new RolloutTeller(fleet, narrator);
  const rollout = await until("the rollout ends", DEMO_TIMES.rolloutS * 1000, async () => {
    fleet.assertRunning();
    const now = await client.get<RolloutView>(`/api/v1/rollouts/${created.rollout}`);
    await teller.tell(now);
    const ended = now.state === "paused" || now.state === "succeeded" || isFinal(ROLLOUT, now.state);
    return ended ? now : undefined;
  });
  return { rollout, shadow: teller.shadow };
}

/** Says once what each wave came to, and what the canary's shadow saw. */
class RolloutTeller {
  readonly #fleet: DemoFleet;
  readonly #narrator: Narrator;
  readonly #told = new Set<string>();
  #shadow: ShadowFigures = { compared: 0, disagreements: 0 };

  constructor(fleet: DemoFleet, narrator: Narrator) {
    this.#fleet = fleet;
    this.#narrator = narrator;
  }

  get shadow(): ShadowFigures {
    return this.#shadow;
  }

  async tell(rollout: RolloutView): Promise<void> {
    const open = rollout.waves.find((wave) => wave.state !== "passed");
    if (open) this.#narrator.progress(`wave ${open.wave} ${open.state}: ${countsText(open.counts)}`);
    for (const wave of rollout.waves) {
      const judged = wave.gate !== null && ["passed", "failed", "inconclusive"].includes(wave.state);
      if (wave.wave === 1 && wave.started !== null) await this.#tellShadow(rollout);
      if (judged && this.#first(`${wave.wave} ${wave.state}`)) this.#tellGate(wave);
    }
  }

  async #tellShadow({ rollout }: RolloutView): Promise<void> {
    if (this.#told.has("shadow")) return;
    const { client } = this.#fleet;
    const { items } = await client.get<Page<RolloutDeviceView>>(`/api/v1/rollouts/${rollout}/devices?wave=1`);
    const canary = items[0];
    // It is over when the device goes on: until then counts grow.
    if (!canary?.deployment || !["activating", "probation", "active"].includes(canary.state)) return;
    const shadow = await client.get<ShadowView>(`/api/v1/deployments/${canary.deployment}/shadow`);
    if (shadow.compared === 0 || !this.#first("shadow")) return;
    this.#shadow = { compared: shadow.compared, disagreements: shadow.disagreements };
    const flips = shadow.classFlips
      .slice(0, 3)
      .map(({ active, candidate, count }) => `${active} → ${candidate} ${count}`)
      .join(", ");
    this.#narrator.say(
      `in shadow on ${canary.device}: ${shadow.compared} frames answered by both, ${percent(shadow.disagreements / shadow.compared)} differently${flips ? ` (${flips})` : ""}`,
    );
  }

  #tellGate(wave: WaveView): void {
    this.#narrator.say(
      `wave ${wave.wave} (${wave.name || `${wave.counts.total} devices`}) ${wave.state}, look ${wave.looks}:`,
    );
    for (const test of wave.gate?.tests ?? []) {
      const marks = { pass: "✔", fail: "✖", inconclusive: "…" };
      this.#narrator.say(`   ${marks[test.verdict]} ${test.test.replaceAll("_", " ")}: ${test.detail}`);
    }
  }

  #first(key: string): boolean {
    if (this.#told.has(key)) return false;
    this.#told.add(key);
    return true;
  }
}
