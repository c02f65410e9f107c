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
export { judgeGate, judgeHealth } from "./domain/gate.js";
export { alphaOf, FALSE_STOP_WEIGHTS, type EvidenceTest } from "./domain/gate-budget.js";
export type {
  DeviceEvidence,
  DeviceStats,
  GateEvidence,
  Moments,
  ShadowCounts,
} from "./domain/gate-evidence.js";
export { logEvidenceAbove, proportionBounds, type Bounds } from "./domain/statistics/binomial-mixture.js";
export {
  clipOutliers,
  contrastBounds,
  contrastEvidence,
  contrastOf,
  meanOfDevices,
  shareOfDevices,
  type Contrast,
} from "./domain/statistics/device-contrast.js";
export { dropBounds, pairedEvidence } from "./domain/statistics/paired.js";
export { differenceBounds, differenceEvidence } from "./domain/statistics/proportions.js";
export { markedEvidence } from "./domain/statistics/random-labels.js";
export { overdispersion, rateEvidence, rateRatioBounds } from "./domain/statistics/rates.js";
export { findSilence } from "./domain/statistics/silence.js";
export { RolloutEngine, type EngineSources } from "./domain/rollout-engine.js";
export { Fleet, type FleetRecord } from "./domain/fleet.js";
export { planWaves } from "./domain/waves.js";
export type { LiveRollout } from "./domain/rollout-live.js";
export type { RolloutDevice, RolloutRecord } from "./domain/rollout.js";
export { act } from "./domain/rollout-actions.js";
