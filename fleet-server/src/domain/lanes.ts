import { FieldloopError, MAIN_LANE, type Assignment } from "@fieldloop/protocol";

/** As the desired state allows. */
const ASSIGNMENTS_MAX = 8;

/** A lane of a device as it reported it. */
export interface ReportedLane<Running> {
  readonly name: string;
  /** The model that it is for; any where there is none. */
  readonly model: string | null;
  readonly running: Running | null;
}

/** The lane that a model is for: one that says so, else the first that takes any, else `main`, which a device sorts out by itself. */
export function laneFor(
  lanes: readonly Pick<ReportedLane<unknown>, "name" | "model">[],
  model: string,
): string {
  const found = lanes.find((lane) => lane.model === model) ?? lanes.find((lane) => lane.model === null);
  return found?.name ?? MAIN_LANE;
}

/** What a device runs where a model would go: in its lane, or at all where the device has one source. */
export function runningWhere<Running>(
  state: { readonly running: Running | null; readonly lanes: readonly ReportedLane<Running>[] },
  model: string,
): Running | null {
  if (state.lanes.length < 2) return state.running;
  const lane = laneFor(state.lanes, model);
  return state.lanes.find(({ name }) => name === lane)?.running ?? null;
}

/** A new assignment takes the place of its lane's; the other lanes keep theirs. @throws FieldloopError `limit_exceeded` */
export function replaceLane(kept: readonly Assignment[], assignment: Assignment): Assignment[] {
  const others = kept.filter(({ lane }) => lane !== assignment.lane);
  if (others.length >= ASSIGNMENTS_MAX) {
    throw new FieldloopError(
      "limit_exceeded",
      `Assign: ${others.length} lanes have one already, at most ${ASSIGNMENTS_MAX} can`,
    );
  }
  return [...others, assignment];
}
