import { runLoopSuite } from "./loop.js";
import { makeReport, printReport, progress, writeReport, type Figure } from "./report.js";

interface Suite {
  readonly describes: string;
  readonly run: () => Promise<Figure[]>;
}

const SUITES: Readonly<Record<string, Suite>> = {
  loop: {
    describes:
      "one device and one server, from the frame to the stored prediction, beside bare ONNX Runtime, aedes and SQLite (2 minutes)",
    run: runLoopSuite,
  },
};

const USAGE = `Usage: npm run bench -- SUITE [--json FILE]

Suites:
${Object.entries(SUITES)
  .map(([name, { describes }]) => `  ${name.padEnd(8)} ${describes}`)
  .join("\n")}
`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(USAGE);
    return 0;
  }
  const at = args.indexOf("--json");
  const jsonPath = at === -1 ? undefined : args[at + 1];
  const names = at === -1 ? args : args.toSpliced(at, 2);
  const [name] = names;
  const suite = name !== undefined && Object.hasOwn(SUITES, name) ? SUITES[name] : undefined;
  if (!suite || names.length !== 1 || (at !== -1 && jsonPath === undefined)) {
    if (name !== undefined && !suite) process.stderr.write(`No suite "${name}".\n`);
    process.stderr.write(USAGE);
    return 2;
  }
  const begin = performance.now();
  const figures = await suite.run();
  const report = makeReport(name!, figures, (performance.now() - begin) / 1000);
  printReport(report);
  if (jsonPath !== undefined) {
    writeReport(jsonPath, report);
    progress(`written to ${jsonPath}`);
  }
  return 0;
}
