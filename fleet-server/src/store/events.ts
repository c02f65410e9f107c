import type { EventData } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import { SERVER_LIMITS } from "../limits.js";
import type { Database, Migration } from "./database.js";

export const EVENTS_MIGRATION: Migration = {
  name: "0009_events",
  statements: (types) => [
    `create table device_events (
      device text not null, boot ${types.bigint} not null, seq ${types.bigint} not null, time ${types.bigint} not null,
      received ${types.bigint} not null, type text not null, data text not null, primary key (device, boot, seq))`,
    "create index device_events_type on device_events (device, type, received)",
    `create table dead_letters (
      id text primary key, device text not null, kind text not null, code text not null, message text not null,
      received ${types.bigint} not null, bytes integer not null, payload ${types.blob} not null)`,
    "create index dead_letters_received on dead_letters (received)",
  ],
};

export interface DeviceEvent {
  readonly device: string;
  readonly boot: number;
  readonly seq: number;
  /** The device's time. */
  readonly time: number;
  readonly received: number;
  readonly data: EventData;
}

/** A message that could not be taken in, set aside with the beginning of its bytes. */
export interface DeadLetter {
  readonly id: string;
  readonly device: string;
  readonly kind: string;
  readonly code: string;
  readonly message: string;
  readonly received: number;
  readonly bytes: number;
  readonly payload: Uint8Array;
}

/** What devices said in events, and what they said that nobody understood. */
export class EventStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async insert(tx: Database, event: DeviceEvent): Promise<void> {
    await tx.run(sql`insert into device_events (device, boot, seq, time, received, type, data)
      values (${event.device}, ${event.boot}, ${event.seq}, ${event.time}, ${event.received}, ${event.data.type}, ${JSON.stringify(event.data)})`);
  }

  /** Newest first; `types` narrows them, such as `crash`. */
  async list(
    device: string,
    options: { type?: EventData["type"]; from?: number; limit: number },
  ): Promise<DeviceEvent[]> {
    const type = options.type === undefined ? sql`` : sql` and type = ${options.type}`;
    const rows = await this.#database.all<
      Omit<DeviceEvent, "data"> & { data: string }
    >(sql`select device, boot, seq, time, received, data
      from device_events where device = ${device} and received >= ${options.from ?? 0}${type}
      order by received desc, boot desc, seq desc limit ${options.limit}`);
    return rows.map((row) => ({ ...row, data: JSON.parse(row.data) as EventData }));
  }

  /** Crashes of a device's processes since a time. */
  async crashes(device: string, from: number): Promise<number> {
    const row = await this.#database.get<{ count: number }>(
      sql`select count(*) as count from device_events where device = ${device} and type = 'crash' and received >= ${from}`,
    );
    return row!.count;
  }

  /** The table keeps the newest; what falls out was counted. */
  async insertDeadLetter(tx: Database, letter: DeadLetter): Promise<void> {
    await tx.run(sql`insert into dead_letters (id, device, kind, code, message, received, bytes, payload)
      values (${letter.id}, ${letter.device}, ${letter.kind}, ${letter.code}, ${letter.message}, ${letter.received}, ${letter.bytes},
        ${letter.payload.subarray(0, SERVER_LIMITS.deadLetterBytesMax)})`);
    await tx.run(sql`delete from dead_letters where id in
      (select id from dead_letters order by received desc, id desc limit 100 offset ${SERVER_LIMITS.deadLettersMax})`);
  }

  async deadLetters(limit: number): Promise<DeadLetter[]> {
    return this.#database.all(sql`select id, device, kind, code, message, received, bytes, payload from dead_letters
      order by received desc, id desc limit ${limit}`);
  }

  async deadLetterCount(): Promise<number> {
    return (await this.#database.get<{ count: number }>(sql`select count(*) as count from dead_letters`))!
      .count;
  }
}
