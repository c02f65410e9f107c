export { startAgent, type AgentHandle, type AgentOptions } from "./control/agent.js";
export { AGENT_LIMITS, AGENT_VERSION } from "./limits.js";
export { createAgentLog, type LogOptions } from "./log.js";
export { parseSourceSpec, SOURCE_FORMS, type SourceSpec } from "./source-spec.js";
