import type { Ack, DeploymentState, ErrorCode, LiveEvent, Stream } from "@fieldloop/protocol";
import type { BlobStore } from "../blob/blob.js";
import type { IdentityConflict } from "../domain/identity.js";
import type { LabelService } from "../services/labels.js";
import type { DeploymentStore } from "../store/deployments.js";
import type { DeviceStore } from "../store/devices.js";
import type { EventStore } from "../store/events.js";
import type { SampleIngestStore } from "../store/samples.js";
import type { ShadowStore } from "../store/shadow.js";
import type { TelemetryStore } from "../store/telemetry.js";
import { Rollups } from "./rollups.js";

/** What the handlers of message kinds work with. */
export interface IngestStores {
  readonly telemetry: TelemetryStore;
  readonly devices: DeviceStore;
  readonly deployments: DeploymentStore;
  readonly samples: SampleIngestStore;
  readonly events: EventStore;
  readonly shadow: ShadowStore;
  readonly labels: LabelService;
  readonly blobs: BlobStore;
}

/** One message on its way into the store. */
export interface Origin {
  readonly device: string;
  readonly received: number;
  readonly payload: Uint8Array;
}

/** What a device said about a deployment of a rollout. */
export interface DeploymentNews {
  readonly rollout: string;
  readonly deployment: string;
  readonly device: string;
  readonly state: DeploymentState;
  readonly errorCode: ErrorCode | null;
  readonly errorMessage: string | null;
}

/** What one unit of work adds up, and what is told to others after it became durable. */
export class CommitEffects {
  readonly rollups = new Rollups();
  /** Identities that two agents were seen to use. */
  readonly conflicts = new Map<string, IdentityConflict>();
  readonly #acks = new Map<string, Map<Stream, Ack>>();
  readonly #live = new Map<string, LiveEvent>();
  readonly #predictions = new Map<string, number>();

  ack(device: string, ack: Ack): void {
    let streams = this.#acks.get(device);
    if (!streams) this.#acks.set(device, (streams = new Map()));
    streams.set(ack.stream, ack);
  }

  conflict(device: string, conflict: IdentityConflict): void {
    this.conflicts.set(device, conflict);
  }

  live(event: LiveEvent): void {
    this.#live.set(`${event.type} ${event.id}`, event);
  }

  predictions(device: string, count: number): void {
    this.#predictions.set(device, (this.#predictions.get(device) ?? 0) + count);
  }

  /** Told about, each device once, with the time of its last message. */
  readonly seen = new Map<string, number>();
  readonly words: DeploymentNews[] = [];

  get acks(): [device: string, acks: Ack[]][] {
    return [...this.#acks].map(([device, streams]) => [device, [...streams.values()]]);
  }

  get liveEvents(): Iterable<LiveEvent> {
    return this.#live.values();
  }

  get predictionsByDevice(): ReadonlyMap<string, number> {
    return this.#predictions;
  }
}
