import type { DeviceSelector } from "@fieldloop/protocol";
import { InvalidArgumentError, Option, type Command } from "commander";
import {
  readCount,
  readList,
  readNumber,
  readTags,
  tagsOf,
  type FleetOptions,
} from "../commands/fleet-options.js";
import { isBody, type Body } from "./body.js";

/** What `rollout create` was given; everything that is left out is as `--from` says, or has the server's default. */
export interface CreateOptions extends FleetOptions {
  name?: string;
  config?: Body;
  devices?: string[];
  group?: string;
  select?: Record<string, string>;
  frozen?: boolean;
  waves?: Wave[];
  approveWaves?: number[];
  control?: { share: number } | { count: number };
  budget?: Budget[];
  at?: number;
  window?: Window[];
  rate?: number;
  priority?: number;
  approval?: boolean;
  onFailure?: string;
  soak?: number;
  silence?: number;
  timeout?: number;
  predictions?: number;
  accuracyDrop?: number;
  latencyRatio?: number;
  failedShare?: number;
  shadow?: number;
  shadowPredictions?: number;
  shadowCpu?: number;
  shadowLabels?: number;
  probation?: number;
  retries?: number;
  force?: string;
  draft?: boolean;
  from?: string;
  print?: boolean;
  watch?: boolean;
}

type Wave = { percent: number } | { count: number } | { devices: string[] } | { selector: DeviceSelector };
type Budget = { tag: string; maxUnavailable: { count: number } | { percent: number } };
interface Window {
  /** Every day where it is empty. */
  days: number[];
  start: string;
  minutes: number;
}

/** Adds the options of `rollout create`. */
export function withCreateOptions(command: Command): Command {
  return command
    .option("--name <text>", "what people see in lists")
    .option(
      "--config <json>",
      "in place of MODEL@VERSION: a policy, e.g. '{\"worthPerMinute\":20}'",
      readConfig,
    )
    .option("--devices <ids>", "target: devices, separated by commas", readList)
    .option("--group <name>", "target: a group; `all` is every device")
    .option("--select <tags>", "target: devices with all of these tags, e.g. site=lyon,line=3", readTags)
    .option("--frozen", "take the target as it is now; otherwise devices that join later are part of it")
    .option("--waves <list>", "e.g. 1,10%,100% or cam-a+cam-b,site=lyon,100%", readWaves)
    .option("--approve-waves <numbers>", "waves that a person must let begin, e.g. 2,3", readNumbers)
    .option(
      "--control <share>",
      "devices held back for comparison: a count, or a share such as 10%",
      readControl,
    )
    .option(
      "--budget <rules>",
      "never more unavailable at once for one value of a tag, e.g. site=1,line=20%",
      readBudgets,
    )
    .option("--at <time>", "not before this time, ISO 8601", readTime)
    .option(
      "--window <spec>",
      "in the device's own time, e.g. 22:00+240 or mo-fr@01:30+90; may be repeated",
      readWindow,
      [],
    )
    .option("--rate <offers>", "offers a minute, at most", readCount)
    .option(
      "--priority <number>",
      "0..1000; of rollouts that want the same device, the higher goes first",
      readNumber,
    )
    .option("--approval", "a second person must approve it before anything begins")
    .option("--on-failure <action>", "pause, abort or roll_back", readOnFailure)
    .option("--failed-share <share>", "failed devices of a wave that are tolerated, 0..1", readNumber)
    .option("--soak <seconds>", "how long a complete wave is watched", readNumber)
    .option("--silence <seconds>", "a device silent for longer has failed", readNumber)
    .option("--timeout <seconds>", "a wave not complete after this long has failed", readNumber)
    .option("--predictions <count>", "predictions wanted from each device before a verdict", readNumber)
    .option("--accuracy-drop <share>", "largest drop of accuracy that passes, 0..1", readNumber)
    .option("--latency-ratio <ratio>", "largest growth of latency that passes, e.g. 1.25", readNumber)
    .option(
      "--shadow <seconds>",
      "run the candidate beside the active version first, for so long",
      readNumber,
    )
    .option("--shadow-predictions <count>", "and until it compared so many frames", readCount)
    .option("--shadow-cpu <share>", "of the device's processors, at most, 0..1", readNumber)
    .option("--shadow-labels <count>", "labelled disagreements wanted before a verdict", readCount)
    .option("--probation <seconds>", "probation on the device", readNumber)
    .option(
      "--retries <count>",
      "ask again so often where a download, a disk or a time-out failed",
      readNumber,
    )
    .option("--force <reason>", "roll out without a passing evaluation, and why: 10 letters or more")
    .option("--draft", "plan it, do not start it")
    .option(
      "--from <file>",
      "the request as JSON, with everything that the API takes (`-`: standard input); options go over it",
    )
    .addOption(
      new Option("--print", "print the request with every default, for --from, and send nothing").conflicts(
        "watch",
      ),
    )
    .option("--watch", "stay until it ends, waves and gates drawn live");
}

/** `1` is a count, `10%` a cumulative share, `site=lyon` devices with that tag, anything else devices joined by `+`. */
function readWaves(text: string): Wave[] {
  return readList(text).map((part) => {
    if (/^\d+(?:\.\d+)?%$/.test(part)) return { percent: Number(part.slice(0, -1)) };
    if (/^\d+$/.test(part)) return { count: Number(part) };
    if (part.includes("=")) return { selector: { tags: tagsOf(part.split("+")) } };
    return { devices: part.split("+") };
  });
}

function readNumbers(text: string): number[] {
  return readList(text).map(readCount);
}

function readControl(text: string): { share: number } | { count: number } {
  return text.endsWith("%") ? { share: readNumber(text.slice(0, -1)) / 100 } : { count: readCount(text) };
}

function readBudgets(text: string): Budget[] {
  return Object.entries(tagsOf(readList(text))).map(([tag, most]) => ({
    tag,
    maxUnavailable: most.endsWith("%")
      ? { percent: readNumber(most.slice(0, -1)) }
      : { count: readCount(most) },
  }));
}

function readTime(text: string): number {
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new InvalidArgumentError(`"${text}" is no time, such as 2026-12-01T02:00Z`);
  return time;
}

const DAYS = ["su", "mo", "tu", "we", "th", "fr", "sa"];

/** `22:00+240`: from then on for so many minutes, every day; `mo-fr@…` or `sa+su@…` on some. */
function readWindow(text: string, before: readonly Window[]): Window[] {
  const match = /^(?:([a-z+-]+)@)?(\d{2}:\d{2})\+(\d+)$/.exec(text);
  if (!match) throw new InvalidArgumentError(`"${text}" is no window, such as mo-fr@01:30+90`);
  const [, days, start, minutes] = match;
  return [
    ...before,
    { days: days === undefined ? [] : daysOf(days), start: start!, minutes: Number(minutes) },
  ];
}

function daysOf(text: string): number[] {
  return text.split("+").flatMap((part) => {
    const [from, to = from] = part.split("-").map((day) => DAYS.indexOf(day));
    if (from === undefined || to === undefined || from < 0 || to < 0)
      throw new InvalidArgumentError(`"${part}" is no day or range of ${DAYS.join(", ")}`);
    const count = ((to - from + 7) % 7) + 1;
    return Array.from({ length: count }, (_, at) => (from + at) % 7);
  });
}

function readConfig(text: string): Body {
  try {
    const value: unknown = JSON.parse(text);
    if (isBody(value)) return value;
  } catch {
    // Said below, with what was given.
  }
  throw new InvalidArgumentError(`"${text}" is no JSON object`);
}

function readOnFailure(text: string): string {
  if (["pause", "abort", "roll_back"].includes(text)) return text;
  throw new InvalidArgumentError(`"${text}" is none of pause, abort, roll_back`);
}
