#!/usr/bin/env node
import { agentBuild } from "./agent-build.js";
import type * as AgentMain from "./agent-main.js";

const build = process.argv[2] === "agent" ? agentBuild() : undefined;
const program: Pick<typeof AgentMain, "main"> = build
  ? ((await import(build)) as typeof AgentMain)
  : await import("./program.js");
await program.main(process.argv);
