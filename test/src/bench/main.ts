import { runAgentSuite } from "./agent.js";
import { runLoopSuite } from "./loop.js";
import { runModelsSuite } from "./models.js";
import { runOtaSuite } from "./ota.js";
import { runQuantizeSuite } from "./quantize.js";
import { runRolloutSuite } from "./rollout.js";
import { runRuntimeSuite } from "./runtime.js";
import { runStatisticsSuite } from "./statistics.js";
import { makeReport, printReport, progress, SuiteUnavailable, writeReport, type Figure } from "./report.js";

interface Suite {
  readonly describes: string;
  readonly run: (options: { readonly markdown?: string; readonly quick: boolean }) => Promise<Figure[]>;
  /** A page that it can write its table to. */
  readonly page?: string;
}

const SUITES: Readonly<Record<string, Suite>> = {
  loop: {
    describes:
      "one device and one server, from the frame to the stored prediction, beside bare ONNX Runtime, aedes and SQLite (2 minutes)",
    run: runLoopSuite,
  },
  runtime: {
    describes:
      "what the runtime adds to bare ONNX Runtime: from tensors and JPEG files, through the host's worker, pipelines, backends, operator cases (3 minutes, a quiet machine)",
    run: runRuntimeSuite,
  },
  agent: {
    describes:
      "the agent's footprint and start, versions swapped under load, a day's frames and swaps at once (10 minutes, a quiet machine; --quick: 3)",
    run: runAgentSuite,
  },
  quantize: {
    describes:
      "int8 against fp32: speed, memory and time of quantizing, accuracy lost, sizes (3 minutes, a quiet machine)",
    run: runQuantizeSuite,
  },
  statistics: {
    describes:
      "the gates: false stops under daily looks, labels to see one point lost (2 minutes; --quick: a tenth of the runs)",
    run: runStatisticsSuite,
  },
  rollout: {
    describes:
      "10,000 devices over MQTT against a server process, 100,000 in the engine alone, 200 seeded rollouts of each of four bad versions and a good one (9 minutes; --quick: 1)",
    run: runRolloutSuite,
  },
  ota: {
    describes:
      "what travels to a device that has the version before, beside zstd, xdelta3 and bsdiff; how fast a large file is rebuilt (2 minutes; --quick: 1)",
    run: runOtaSuite,
  },
  models: {
    describes:
      "the public models by the command line: imported, run, quantized (3 minutes, FIELDLOOP_TEST_DATA)",
    run: runModelsSuite,
    page: "docs/models.md",
  },
};

const USAGE = `Usage: npm run bench -- SUITE [--json FILE] [--markdown FILE] [--quick]

Suites:
${Object.entries(SUITES)
  .map(([name, { describes }]) => `  ${name.padEnd(10)} ${describes}`)
  .join("\n")}

--markdown writes the table of a suite into its page (models: docs/models.md); --quick does a tenth of what takes long.
`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(USAGE);
    return 0;
  }
  const quick = args.includes("--quick");
  const json = takeOption(
    args.filter((arg) => arg !== "--quick"),
    "--json",
  );
  const markdown = takeOption(json.rest, "--markdown");
  const [name] = markdown.rest;
  const suite = name !== undefined && Object.hasOwn(SUITES, name) ? SUITES[name] : undefined;
  const asked = markdown.value === undefined || suite?.page !== undefined;
  if (!suite || markdown.rest.length !== 1 || json.missing || markdown.missing || !asked) {
    if (name !== undefined && !suite) process.stderr.write(`No suite "${name}".\n`);
    process.stderr.write(USAGE);
    return 2;
  }
  const begin = performance.now();
  let figures: Figure[];
  try {
    figures = await suite.run(markdown.value === undefined ? { quick } : { quick, markdown: markdown.value });
  } catch (error) {
    if (!(error instanceof SuiteUnavailable)) throw error;
    process.stderr.write(`${name}: ${error.message}\n`);
    return 2;
  }
  const report = makeReport(name!, figures, (performance.now() - begin) / 1000);
  printReport(report);
  const jsonPath = json.value;
  if (jsonPath !== undefined) {
    writeReport(jsonPath, report);
    progress(`written to ${jsonPath}`);
  }
  return 0;
}

/** `--name VALUE` and what else there is. */
function takeOption(
  args: readonly string[],
  name: string,
): { value?: string; missing: boolean; rest: readonly string[] } {
  const at = args.indexOf(name);
  if (at === -1) return { missing: false, rest: args };
  const value = args[at + 1];
  const rest = args.toSpliced(at, 2);
  return value === undefined ? { missing: true, rest } : { value, missing: false, rest };
}
