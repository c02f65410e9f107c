export {
  SERVER_VERSION,
  startServer,
  type ServerHandle,
  type ServerOptions,
} from "./server.js";
export { systemClock, type Clock, type Logger } from "./context.js";
export { SERVER_LIMITS } from "./limits.js";
export {
  Broker,
  type BrokerAuthorization,
  type BrokerCounters,
  type BrokerMessage,
  type BrokerOptions,
} from "./broker/broker.js";
export { DEVICE_GUARD, type GuardSettings } from "./broker/connection.js";
export { WireMeter, type TopicKind, type Traffic } from "./broker/meter.js";
export { columnTypes, type Database, type Dialect, type Migration } from "./store/database.js";
export { openDatabase } from "./store/open.js";
export { openPglite, openPostgres } from "./store/postgres.js";
export { openSqlite } from "./store/sqlite.js";
export { migrate } from "./store/migrate.js";
export { MIGRATIONS } from "./store/migrations.js";
export type { BlobContent, BlobInfo, BlobStore } from "./blob/blob.js";
export { FileBlobStore } from "./blob/files.js";
export { DEFAULT_POLICY, type DevicePolicy } from "./services/policy.js";
export type { IngestCounters } from "./ingest/ingest.js";
