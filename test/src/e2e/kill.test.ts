import { join } from "node:path";
import type { DeviceState } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AckRecorder } from "../kit/acks.js";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { readLedger } from "../kit/ledger.js";
import { isAlive } from "../kit/processes.js";
import { FaultProxy } from "../kit/proxy.js";
import { randomOf, testSeed } from "../kit/random.js";
import { writeTinyPackage } from "../kit/tiny-package.js";
import { isThorough } from "../kit/thorough.js";
import { until } from "../kit/wait.js";

/**
 * Whole fleets of real processes under load, killed at any moment: nothing that was acknowledged may be lost or doubled, and
 * after every kill the fleet goes on by itself.
 */
const KILLS = isThorough ? 10 : 4;
const CUT_MS = isThorough ? 60_000 : 10_000;
/** Of each of six devices; what they are slowed down by then is their number, not their frames. */
const FPS = isThorough ? 60 : 15;
/** Two idle cores take a quarter of it; a busy machine may take longer. */
const TIMEOUT_MS = 600_000;
const seed = testSeed();
const scratch = scratchFolder("kill");
const lines: string[] = [];

interface Fleet {
  readonly server: ServerProgram;
  readonly proxy: FaultProxy;
  readonly agents: readonly AgentProgram[];
  readonly acks: AckRecorder;
  readonly random: ReturnType<typeof randomOf>;
}

beforeAll(() => console.log(`FIELDLOOP_TEST_SEED=${seed}`));
afterAll(async () => {
  await endPrograms();
  console.log(lines.join("\n"));
  scratch.remove();
});

/** A server behind a proxy, agents that run version 1 and send predictions and samples as fast as they may. */
async function startFleet(name: string, part: number, agentCount: number): Promise<Fleet> {
  const folder = join(scratch.path, name);
  const acks = new AckRecorder();
  const proxy = await FaultProxy.open({ onDown: acks.take });
  const server = await ServerProgram.start({ folder, publicMqttUrl: `mqtt://127.0.0.1:${proxy.port}` });
  proxy.aim(server.mqttPort);
  await server.client.patch("/api/v1/policies/default", {
    bytesPerHour: 1024 * 1024 * 1024,
    randomShare: 0.05,
    worthMin: 0,
    worthPerMinute: 120,
    predictionsIntervalSeconds: 0.2,
    profileIntervalSeconds: 2,
  });
  const version = await server.publish(await writeTinyPackage(join(folder, "tiny-1"), { version: 1 }));
  const agents = Array.from({ length: agentCount }, (_, index) => {
    const source = `simulator:parts?seed=${index + 1}&fps=${FPS}&feedback=0.2&feedbackDelayMs=500`;
    return new AgentProgram({ folder, device: `${name}-${index + 1}`, source });
  });
  await Promise.all(
    agents.map(async (agent) => agent.start({ server: server.url, token: await server.enrolmentToken() })),
  );
  const { rollout } = await server.rollOut(
    version,
    agents.map(({ device }) => device),
  );
  expect((await server.settled(rollout, 120_000)).state).toBe("succeeded");
  return { server, proxy, agents, acks, random: randomOf(seed, part) };
}

/** Stops everything in order, then holds the server's books to what the devices said last. */
async function close(name: string, fleet: Fleet, faultsDone: number): Promise<void> {
  const { server, proxy, agents, acks } = fleet;
  const reported = new Map<string, DeviceState>();
  for (const agent of agents) await agent.drained();
  await Promise.all(agents.map((agent) => agent.stop()));
  for (const { device } of agents) {
    const detail = await until(`${device} is offline`, async () => {
      const view = await server.device(device);
      return view.online ? undefined : view;
    });
    reported.set(device, detail.state!);
  }
  await server.stop();
  await proxy.close();

  const ledger = readLedger(server.dataDir, acks);
  expect(ledger.faults).toEqual([]);
  expect(ledger.devices.map(({ device }) => device)).toEqual(agents.map(({ device }) => device).sort());
  for (const { device, predictions, samples } of ledger.devices) {
    const { boot, counters, spool } = reported.get(device)!;
    expect({ device, stored: predictions.get(boot), samples: samples.get(boot) ?? 0 }).toEqual({
      device,
      stored: counters.predictions,
      samples: counters.samplesTaken,
    });
    expect(counters.recordsEvicted).toBe(0);
    expect(spool.records).toBeLessThanOrEqual(1);
  }
  const boots = ledger.devices.reduce((sum, { predictions }) => sum + predictions.size, 0);
  lines.push(
    `${name.padEnd(12)} ${String(faultsDone).padStart(2)} faults  ${String(ledger.predictions).padStart(6)} predictions in ${String(ledger.segments).padStart(4)} messages of ${boots} boots  ${String(ledger.samples).padStart(4)} samples  ${acks.count} acknowledgements kept  lost 0  doubled 0`,
  );
}

/** A moment under load at which nothing is special. */
async function randomMoment(fleet: Fleet): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, fleet.random.range(100, 2_000)));
}

describe.concurrent("kill -9 under load", () => {
  it(
    `of the server, ${KILLS} times: what was acknowledged stays, the rest comes again`,
    async () => {
      const fleet = await startFleet("server", 1, 2);
      for (let kill = 0; kill < KILLS; kill++) {
        await randomMoment(fleet);
        await fleet.server.kill();
        await fleet.server.start();
        await until(
          "an agent is back",
          async () => (await fleet.agents[0]!.metric("fieldloop_link_up")) === 1,
          {
            timeoutMs: 60_000,
          },
        );
      }
      await close("server", fleet, KILLS);
    },
    TIMEOUT_MS,
  );

  it(
    `of the agent's control process, ${KILLS} times: its host ends itself, never are there two`,
    async () => {
      const fleet = await startFleet("control", 2, 1);
      const agent = fleet.agents[0]!;
      const watch = watchHosts(agent);
      for (let kill = 0; kill < KILLS; kill++) {
        await randomMoment(fleet);
        const { boot, hostPid } = await agent.state();
        await agent.kill();
        if (hostPid !== null)
          await until("the orphaned host ended", () => !isAlive(hostPid), { timeoutMs: 5_000, everyMs: 5 });
        await agent.start();
        expect(agent.boot).toBe(boot + 1);
        await agent.predicts(5);
      }
      expect(watch.stop()).toBeLessThanOrEqual(1);
      await close("control", fleet, KILLS);
    },
    TIMEOUT_MS,
  );

  it(
    `of inference hosts, ${KILLS} times over two devices: numbers go on in the same boot`,
    async () => {
      const fleet = await startFleet("host", 3, 2);
      const watches = fleet.agents.map(watchHosts);
      await Promise.all(
        fleet.agents.map(async (agent) => {
          for (let kill = 0; kill < KILLS / 2; kill++) {
            await randomMoment(fleet);
            const { hostPid } = await until("a host runs", async () => {
              const state = await agent.state();
              return state.hostPid === null ? undefined : state;
            });
            process.kill(hostPid!, "SIGKILL");
            await until("another host runs", async () => {
              const state = await agent.state();
              return state.hostPid !== null && state.hostPid !== hostPid;
            });
            await agent.predicts(5, 30_000);
          }
          const { boot, counters } = await agent.state();
          expect({ boot, hostRestarts: counters.hostRestarts }).toEqual({ boot: 1, hostRestarts: KILLS / 2 });
        }),
      );
      for (const watch of watches) expect(watch.stop()).toBeLessThanOrEqual(1);
      await close("host", fleet, KILLS);
    },
    TIMEOUT_MS,
  );
});

describe.concurrent("a broker that cannot be reached", () => {
  it(
    `for ${CUT_MS / 1000} seconds: everything waits on the device and arrives once, in order`,
    async () => {
      const fleet = await startFleet("broker", 4, 1);
      const agent = fleet.agents[0]!;
      const { predictions } = (await agent.state()).counters;
      // At first nothing says so: the connection stands and is silent. Then it is refused.
      fleet.proxy.halfOpen();
      await new Promise((resolve) => setTimeout(resolve, CUT_MS / 4));
      fleet.proxy.refuse();
      await new Promise((resolve) => setTimeout(resolve, (CUT_MS * 3) / 4));
      const before = await agent.state();
      const waiting = await agent.metric('fieldloop_spool_records{stream="predictions"}');
      // It went on all the time: how fast, the load of the machine says.
      expect(before.counters.predictions - predictions).toBeGreaterThan(CUT_MS / 1000);
      expect(waiting).toBeGreaterThan(CUT_MS / 1000 / 2);
      const acknowledged = fleet.acks.count;
      fleet.proxy.heal();
      await until("acknowledgements come again", () => fleet.acks.count > acknowledged, {
        timeoutMs: 60_000,
      });
      await close("broker cut", fleet, 1);
    },
    TIMEOUT_MS,
  );
});

/** Looks all the time how many hosts a device has. */
function watchHosts(agent: AgentProgram): { stop: () => number } {
  let most = 0;
  const timer = setInterval(() => (most = Math.max(most, agent.hosts().length)), 50);
  return {
    stop: () => {
      clearInterval(timer);
      return most;
    },
  };
}
