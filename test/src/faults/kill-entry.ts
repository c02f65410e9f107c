import { readFile } from "node:fs/promises";
import { createAgentLog, type PersistObserver, startAgent } from "@fieldloop/device-agent";
import { type ModelPackage, openPackage } from "@fieldloop/runtime/node";
import { assignmentOf, desiredOf, FaultDevice } from "./fault-device.js";
import { artifactsOf, MemoryServer } from "./memory-server.js";

/**
 * A process of its own that kills itself, as `kill -9` does, at one persist point of an update. `updater` runs the update part of an agent
 * over the real disk; `agent` the whole agent, with its inference host and its link to a server.
 */
export interface KillPlan {
  readonly kind: "updater" | "agent";
  readonly directory: string;
  readonly point: string;
  readonly phase: "before" | "after";
  /** Folders of the packages; the last is the one that is deployed. Of `updater` alone. */
  readonly packages: readonly string[];
  /** Of `agent` alone. */
  readonly server?: string;
  readonly token?: string;
  readonly device?: string;
}

const plan = JSON.parse(await readFile(process.argv[2]!, "utf8")) as KillPlan;
const onPersist: PersistObserver = (point, phase) => {
  if (point === plan.point && phase === plan.phase) process.kill(process.pid, "SIGKILL");
};

async function runUpdater(): Promise<void> {
  const packages: ModelPackage[] = [];
  for (const folder of plan.packages) packages.push(await openPackage(folder));
  const server = new MemoryServer(await artifactsOf(packages));
  const device = new FaultDevice({ directory: plan.directory, server, onPersist });
  await device.start();
  device.receive(desiredOf(10, [assignmentOf(packages.at(-1)!, "d9")]));
  await device.settled("d9");
  await device.stop();
}

async function runAgent(): Promise<void> {
  const { directory, server, token, device } = plan;
  const agent = await startAgent({
    directory,
    server,
    token,
    device,
    source: "simulator:parts?fps=30",
    threadCount: 1,
    env: process.env,
    log: createAgentLog({ level: "warn", write: (line) => void process.stderr.write(line) }),
    onPersist,
  });
  process.send?.({ localUrl: agent.localUrl });
  process.on("SIGTERM", () => void agent.stop().then(() => process.exit(0)));
}

await (plan.kind === "updater" ? runUpdater() : runAgent());
