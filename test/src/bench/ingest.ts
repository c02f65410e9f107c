import { fork } from "node:child_process";
import { join } from "node:path";
import {
  encodePredictions,
  enrolResponseSchema,
  type Overview,
  type PredictionRow,
  type SignalName,
} from "@fieldloop/protocol";
import Sqlite from "better-sqlite3";
import { ServerProgram } from "../kit/fleet.js";
import { TEST_FACTS } from "../kit/api.js";
import { LoadDevice, type Confirmed } from "./load-device.js";
import { progress, type Figure } from "./report.js";

const CONNECTIONS = 8;
const BATCHES = 400;
const ROWS = 500;
const PREDICTIONS = CONNECTIONS * BATCHES * ROWS;
/** Rows that SQLite takes in one commit: what one group commit of the server holds at this load. */
const SQLITE_ROWS_PER_COMMIT = 50_000;
const SQLITE_COMMITS = 20;

interface Material {
  readonly rows: readonly PredictionRow[];
  readonly signalNames: readonly SignalName[];
}

/** Predictions a second that become durable at a server, beside a broker that keeps nothing and a database without a network. */
export async function measureIngest(folder: string, material: Material): Promise<Figure[]> {
  const batches = encodeBatches(material);
  const aedes = await measureAedes(batches);
  const sqlite = measureSqlite(folder, material);
  const { perSecond, bytesPerPrediction } = await measureServer(join(folder, "ingest"), batches);
  return [
    {
      id: "ingest_predictions_per_second",
      what: `ingest of ${ROWS}-row messages over ${CONNECTIONS} connections, until acknowledged as durable`,
      value: perSecond,
      unit: "/s",
      peer: { what: "/s aedes alone, nothing stored", value: aedes },
    },
    {
      id: "sqlite_rows_per_second",
      what: "the same, beside plain SQLite",
      value: perSecond,
      unit: "/s",
      peer: {
        what: `/s rows inserted, ${SQLITE_ROWS_PER_COMMIT.toLocaleString("en-US")} a commit`,
        value: sqlite,
      },
    },
    {
      id: "bytes_per_prediction_500",
      what: `bytes a prediction at ${ROWS} a message: MQTT headers, PUBACK and ack included`,
      value: bytesPerPrediction,
      unit: "B",
      bar: { at: "most", value: 6 },
    },
  ];
}

/** Real predictions of the live camera, over and over, with its own times between them. */
function encodeBatches({ rows, signalNames }: Material): Uint8Array[] {
  progress(`encoding ${BATCHES} messages of ${ROWS} real predictions`);
  const deltas = rows.slice(1).map((row, index) => row.time - rows[index]!.time);
  let time = rows[0]!.time;
  let at = 0;
  return Array.from({ length: BATCHES }, (_, index) =>
    encodePredictions({
      boot: 1,
      seq: index + 1,
      prev: index,
      versionRef: { model: "parts", version: 1, packagePrefix: "00112233445566aa" },
      firstN: index * ROWS,
      signalNames,
      rows: Array.from({ length: ROWS }, () => {
        // A step that shares no factor with the count: no two messages hold the same order.
        at = (at + 7) % rows.length;
        time += deltas[at % deltas.length]!;
        return { ...rows[at]!, time };
      }),
    }),
  );
}

async function measureServer(
  folder: string,
  batches: readonly Uint8Array[],
): Promise<{ perSecond: number; bytesPerPrediction: number }> {
  const server = await ServerProgram.start({ folder });
  try {
    const identities = [];
    for (let index = 0; index < CONNECTIONS; index++) {
      const body = {
        token: await server.enrolmentToken(),
        device: `load-${index}`,
        tags: {},
        facts: TEST_FACTS,
      };
      identities.push(enrolResponseSchema.parse(await server.client.post("/api/v1/enrol", body)));
    }
    progress(`${PREDICTIONS.toLocaleString("en-US")} predictions into a server`);
    const perSecond = await pour(server.mqttPort, identities, "ack", batches);
    const overview = await server.client.get<Overview>("/api/v1/overview");
    if (overview.predictionsTotal !== PREDICTIONS) {
      throw new Error(
        `The server has ${overview.predictionsTotal} predictions, ${PREDICTIONS} were acknowledged`,
      );
    }
    return { perSecond, bytesPerPrediction: overview.bytesPerPrediction! };
  } finally {
    await server.stop();
  }
}

async function measureAedes(batches: readonly Uint8Array[]): Promise<number> {
  const child = fork(new URL("./bare-aedes.js", import.meta.url), []);
  try {
    const { port } = await new Promise<{ port: number }>((resolve, reject) => {
      child.once("message", (message) => resolve(message as { port: number }));
      child.once("exit", () => reject(new Error("aedes ended before it listened")));
    });
    progress(`${PREDICTIONS.toLocaleString("en-US")} predictions into aedes alone`);
    const identities = Array.from({ length: CONNECTIONS }, (_, index) => ({
      device: `load-${index}`,
      credential: "none",
    }));
    return await pour(port, identities, "puback", batches);
  } finally {
    child.kill("SIGKILL");
  }
}

/** @returns predictions a second, from the first byte to the last confirmation */
async function pour(
  port: number,
  identities: readonly { device: string; credential: string }[],
  confirmed: Confirmed,
  batches: readonly Uint8Array[],
): Promise<number> {
  const devices = await Promise.all(
    identities.map((identity) => LoadDevice.connect(port, identity, confirmed)),
  );
  const begin = performance.now();
  await Promise.all(devices.map((device) => device.publish(batches)));
  const tookMs = performance.now() - begin;
  for (const device of devices) device.end();
  return (PREDICTIONS / tookMs) * 1000;
}

/** One row a prediction, synced at every commit, as somebody without columns would store them. */
function measureSqlite(folder: string, { rows }: Material): number {
  progress(`${(SQLITE_ROWS_PER_COMMIT * SQLITE_COMMITS).toLocaleString("en-US")} rows into plain SQLite`);
  const database = new Sqlite(join(folder, "rows.db"));
  try {
    database.pragma("journal_mode = WAL");
    database.pragma("synchronous = FULL");
    database.exec(`create table predictions (device text, boot integer, n integer, time integer, version integer, class integer,
      confidence real, latency real, s0 real, s1 real, s2 real, s3 real, primary key (device, boot, n)) without rowid`);
    const insert = database.prepare("insert into predictions values (?, 1, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?)");
    let n = 0;
    const commit = database.transaction(() => {
      for (let row = 0; row < SQLITE_ROWS_PER_COMMIT; row++, n++) {
        const { time, class: label, confidence, latencyMs, signals } = rows[n % rows.length]!;
        insert.run(
          "load-0",
          n,
          time + n,
          label,
          confidence,
          latencyMs,
          signals[0] ?? 0,
          signals[1] ?? 0,
          signals[2] ?? 0,
          signals[3] ?? 0,
        );
      }
    });
    const begin = performance.now();
    for (let index = 0; index < SQLITE_COMMITS; index++) commit();
    return ((SQLITE_ROWS_PER_COMMIT * SQLITE_COMMITS) / (performance.now() - begin)) * 1000;
  } finally {
    database.close();
  }
}
