export { HostProcess, type HostProcessOptions } from "./control/host-process.js";
export { systemClock, type Clock } from "./clock.js";
export { type Bandwidth, openBandwidth } from "./control/bandwidth.js";
export { DesiredFollower } from "./control/desired-follower.js";
export { DesiredStore } from "./control/desired-store.js";
export { type AppendFile, type DeviceFiles, nodeFiles } from "./control/device-files.js";
export { type Rebuild, rebuildInProcess } from "./control/delta-process.js";
export { Durable, PERSIST_POINTS, type PersistObserver, type PersistPoint } from "./control/durable.js";
export type { HttpAnswer, HttpFetch, HttpRequest } from "./control/http-fetch.js";
export { PackageStore } from "./control/package-store.js";
export { type PackageTrust, targetTrust } from "./control/package-trust.js";
export { ProviderPlans } from "./control/provider-plans.js";
export { Updater } from "./control/updater.js";
export { Warnings } from "./control/warnings.js";
export type { RunShadow, UpdaterOptions, UpdaterTimes } from "./control/updater-options.js";
export type { Activation, PackageToRun, SelfTest } from "./ipc.js";
export { startAgent, type AgentHandle, type AgentOptions } from "./control/agent.js";
export {
  TrustClient,
  type TrustClientOptions,
  type TrustedPackage,
  type TrustStatus,
} from "./control/trust/trust-client.js";
export { AGENT_LIMITS, AGENT_VERSION } from "./limits.js";
export { createAgentLog, type LogOptions } from "./log.js";
export { whoLeaves, type ThreadShare } from "./host/thread-shares.js";
export { readSource, type ReadWants } from "./host/sources/read.js";
export type { SourceFrame, WindowShape } from "./host/sources/source.js";
export { LANE_FORM, parseLaneSpec, parseLaneSpecs, type LaneSpec } from "./lane-spec.js";
export { SOURCE_FORMS } from "./source-parts.js";
export { parseSourceSpec, sourceName, type SourceSpec } from "./source-spec.js";
export {
  inspectMachine,
  installService,
  serviceStatus,
  uninstallService,
  type InstallReport,
  type ServicePlace,
  type ServiceStatus,
  type UninstallReport,
} from "./service/install.js";
export { ServiceNotifier, type NotifyEnvironment } from "./service/notify.js";
export { planInstall, type InstallOptions, type InstallPlan, type Machine } from "./service/plan.js";
export { unitText, type UnitPlan } from "./service/unit.js";
