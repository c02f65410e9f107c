#!/usr/bin/env node
import { keepControlSmall } from "@fieldloop/device-agent/footprint";
import { bundledProgram } from "./bundled-program.js";
import type * as Program from "./program.js";

const command = process.argv[2];
if (command === "agent") keepControlSmall();
const bundle = bundledProgram(command);
const program: Pick<typeof Program, "main"> = bundle
  ? ((await import(bundle)) as typeof Program)
  : await import("./program.js");
await program.main(process.argv);
