/** What the command of a device needs to start the agent: it loads the rest while the inference host does. */
export { startAgent, type AgentHandle } from "./control/agent.js";
export { lowerHelperThreads } from "./control/priority.js";
export { createAgentLog } from "./log.js";
export { ServiceNotifier } from "./service/notify.js";
