#!/usr/bin/env node
import { keepControlSmall } from "@fieldloop/device-agent/footprint";
import { agentBuild } from "./agent-build.js";
import type * as AgentMain from "./agent-main.js";

const isAgent = process.argv[2] === "agent";
if (isAgent) keepControlSmall();
const build = isAgent ? agentBuild() : undefined;
const program: Pick<typeof AgentMain, "main"> = build
  ? ((await import(build)) as typeof AgentMain)
  : await import("./program.js");
await program.main(process.argv);
