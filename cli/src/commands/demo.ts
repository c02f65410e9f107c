import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import pc from "picocolors";
import { DEMO_DEVICES, DemoFleet } from "../demo/fleet.js";
import { percent } from "../demo/measure.js";
import { Narrator } from "../demo/narrator.js";
import type { DemoReport } from "../demo/report.js";
import { tellStory } from "../demo/story.js";
import { EXIT, action } from "../output.js";

interface DemoOptions {
  once?: boolean;
  json?: string;
  data: string;
}

export function registerDemoCommand(program: Command): void {
  program
    .command("demo")
    .description(
      "run the whole loop on this machine: a server, three cameras and a vibration sensor, a failure and its fix",
    )
    .option("--once", "run to the end without a person and exit; exit code 0 only if the loop closed")
    .option("--json <file>", "write the measured figures to this file")
    .option("--data <dir>", "where the demo keeps its data; emptied at the start", ".fieldloop/demo")
    .addHelpText(
      "after",
      "\nExamples:\n  fieldloop demo                          with you labelling in the console, until Ctrl-C\n  fieldloop demo --once --json out.json   unattended, under five minutes",
    )
    .action(action(runDemo));
}

async function runDemo(options: DemoOptions): Promise<void> {
  const narrator = new Narrator();
  const fleet = new DemoFleet(resolve(options.data));
  const interrupted = new Promise<"interrupted">((done) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => done("interrupted"));
  });
  try {
    const outcome = await Promise.race([
      tellStory(fleet, narrator, { unattended: options.once === true }),
      interrupted,
    ]);
    if (outcome === "interrupted") {
      process.exitCode = EXIT.failed;
      return;
    }
    if (options.json) writeFileSync(options.json, `${JSON.stringify(outcome, null, 2)}\n`);
    conclude(narrator, outcome);
    process.exitCode = outcome.closed ? EXIT.ok : EXIT.failed;
    if (!options.once) {
      await Promise.all(DEMO_DEVICES.map((device) => fleet.resumeAgent(device)));
      narrator.say(`the fleet goes on and the console stays up: ${fleet.consoleUrl} (Ctrl-C ends the demo)`);
      await interrupted;
    }
  } finally {
    await fleet.stop();
  }
}

function conclude(narrator: Narrator, report: DemoReport): void {
  const { healthy, degraded, recovered } = report.fieldAccuracy;
  narrator.chapter(report.closed ? pc.green("The loop closed") : pc.red("The loop did not close"));
  narrator.say(
    `field accuracy ${percent(healthy)} → ${percent(degraded)} → ${percent(recovered)}; old data ${percent(report.oldDataAccuracy.before)} → ${percent(report.oldDataAccuracy.after)}`,
  );
  narrator.say(
    `${report.samplesUploaded} samples, ${report.labels} labels, ${percent(report.failurePrecision)} of those chosen for worth were errors (${percent(report.randomErrorShare)} by chance)`,
  );
  narrator.say(
    `${report.predictions.made} predictions, ${report.predictions.lost} lost, ${report.bytesPerPrediction} bytes each on the wire, ${report.framesDroppedDuringSwap} frames dropped while swapping`,
  );
  for (const reason of report.unmet) narrator.say(pc.red(reason));
  narrator.say(`${report.durationS} s in all`);
}
