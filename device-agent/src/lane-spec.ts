import { FieldloopError, laneNameSchema, MAIN_LANE, modelNameSchema } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "./limits.js";
import { laneOptions } from "./source-options.js";
import { withoutLogins } from "./source-parts.js";
import { parseSourceSpec, type SourceSpec } from "./source-spec.js";

/** One source of a device and how its frames are taken. */
export interface LaneSpec {
  readonly name: string;
  /** The model that it is for; any where there is none. */
  readonly model: string | null;
  /** 0..100: the frames of the highest go first. */
  readonly priority: number;
  /** Frames a second that are taken at most; the others are skipped. */
  readonly rateMax: number | undefined;
  /** Frames that may run together when several wait; 1 for one at a time. */
  readonly batch: number;
  readonly source: SourceSpec;
}

/** What a person may write in front of and behind any source, for help texts. */
export const LANE_FORM = "[NAME=]SOURCE, with model=NAME&priority=0..100&rate=FPS&batch=N among its options";

/**
 * `[NAME=]SPEC`: a source, with the options of its lane among its own.
 * @throws FieldloopError `invalid_argument`, `source_unknown`
 */
export function parseLaneSpec(text: string): LaneSpec {
  const match = /^(?:([^:=?/]*)=)?([^?]*)(?:\?(.*))?$/s.exec(text);
  const name = match?.[1] ?? MAIN_LANE;
  if (!match || !laneNameSchema.safeParse(name).success) {
    throw refused(
      text,
      `"${name.slice(0, 40)}" is no lane name: lower-case letters, digits and -, at most 32`,
    );
  }
  const ours: Record<string, string> = {};
  const theirs: string[] = [];
  for (const pair of match[3] === undefined || match[3] === "" ? [] : match[3].split("&")) {
    const option = pair.split("=")[0]!;
    if (Object.hasOwn(laneOptions.shape, option)) ours[option] = new URLSearchParams(pair).get(option) ?? "";
    else theirs.push(pair);
  }
  const parsed = laneOptions.safeParse(ours);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refused(text, `${issue.path.join(".")}: ${issue.message}`);
  }
  const { model, priority, rate, batch } = parsed.data;
  if (model !== undefined && !modelNameSchema.safeParse(model).success) {
    throw refused(text, `model: "${model.slice(0, 64)}" is no model name`);
  }
  const source = parseSourceSpec(theirs.length > 0 ? `${match[2]!}?${theirs.join("&")}` : match[2]!);
  return { name, model: model ?? null, priority, rateMax: rate, batch, source };
}

/** All lanes of a device. @throws FieldloopError `invalid_argument` where two have one name, or there are too many */
export function parseLaneSpecs(texts: readonly string[]): LaneSpec[] {
  const { lanesMax } = AGENT_LIMITS;
  if (texts.length === 0 || texts.length > lanesMax) {
    throw new FieldloopError(
      "invalid_argument",
      `Read sources: ${texts.length} of them, wanted 1 to ${lanesMax}`,
    );
  }
  const lanes = texts.map((text) => parseLaneSpec(text));
  for (const [at, { name }] of lanes.entries()) {
    if (lanes.findIndex((lane) => lane.name === name) === at) continue;
    throw new FieldloopError(
      "invalid_argument",
      `Read sources: two are named "${name}", say NAME=SOURCE to tell them apart`,
    );
  }
  return lanes;
}

function refused(text: string, what: string): FieldloopError {
  return new FieldloopError(
    "invalid_argument",
    `Read lane "${withoutLogins(text.split("?")[0]!).slice(0, 200)}": ${what}`,
  );
}
