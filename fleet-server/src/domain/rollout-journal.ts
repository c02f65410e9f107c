import type { ErrorCode, GateVerdict, RolloutState, WaveState } from "@fieldloop/protocol";
import type { RolloutDevice, RolloutWave } from "./rollout.js";

/** Who decided: a person's or program's name, the engine by its rules, or a gate by its numbers. */
export const ENGINE = "engine";
export const GATE = "gate";

/** One decision, as it goes into the rollout's history, the audit log and webhooks. */
export type JournalEntry =
  | {
      readonly type: "rollout";
      readonly actor: string;
      readonly state: RolloutState;
      readonly reason: string | null;
    }
  | { readonly type: "wave"; readonly actor: string; readonly wave: number; readonly state: WaveState }
  | {
      readonly type: "verdict";
      readonly actor: string;
      readonly wave: number;
      readonly look: number;
      readonly verdict: GateVerdict;
    }
  | {
      readonly type: "action";
      readonly actor: string;
      readonly action: string;
      readonly wave: number | null;
      readonly reason: string | null;
    }
  | {
      readonly type: "devices";
      readonly actor: string;
      readonly what: DevicesWhat;
      readonly count: number;
      readonly devices: readonly { readonly device: string; readonly errorCode: ErrorCode | null }[];
    };
export type DevicesWhat = "offered" | "failed" | "silent" | "skipped" | "joined" | "retried" | "restored";

/** Devices named in one entry; the others are counted. */
const NAMED_MAX = 100;

/** What a step changed: which records to store, what to tell devices, what to write down. */
export class Journal {
  rollout = false;
  readonly waves = new Set<RolloutWave>();
  readonly devices = new Set<RolloutDevice>();
  /** Not stored yet. */
  readonly added = new Set<RolloutDevice>();
  readonly offers: RolloutDevice[] = [];
  readonly restores: RolloutDevice[] = [];
  /** Offers to take out of the desired state of devices that had nothing before: there is nothing else to ask of them. */
  readonly withdrawals: RolloutDevice[] = [];
  /** Devices that are compared with from now on: their counts so far are to be remembered. */
  readonly compared: RolloutDevice[] = [];
  /** Of the offers, those whose devices are looked at by the gate: their counts so far are to be remembered too. */
  readonly watched: RolloutDevice[] = [];
  readonly entries: JournalEntry[] = [];
  /** Of the entries, looks at a gate that say what the one before said: stored and streamed, but webhooks are not told. */
  readonly repeats = new Set<JournalEntry>();
  readonly #groups = new Map<string, Extract<JournalEntry, { type: "devices" }>>();

  get empty(): boolean {
    return (
      !this.rollout &&
      this.waves.size + this.devices.size + this.added.size + this.entries.length === 0 &&
      this.#groups.size === 0
    );
  }

  write(entry: JournalEntry): void {
    this.entries.push(entry);
  }

  /** Adds a device to the entry of its kind: a step that fails a hundred devices writes one line. */
  note(what: DevicesWhat, actor: string, entry: RolloutDevice): void {
    const key = `${what} ${actor}`;
    const group = this.#groups.get(key);
    const named = { device: entry.device, errorCode: entry.errorCode };
    const devices = !group ? [named] : group.count < NAMED_MAX ? [...group.devices, named] : group.devices;
    this.#groups.set(key, { type: "devices", what, actor, count: (group?.count ?? 0) + 1, devices });
  }

  /** Everything to write down, in order: what happened to devices before what followed from it. */
  lines(): readonly JournalEntry[] {
    return [...this.#groups.values(), ...this.entries];
  }
}
