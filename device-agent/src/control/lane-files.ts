import { join } from "node:path";
import { MAIN_LANE } from "@fieldloop/protocol";

/** Names of a lane's files in the state folder. The lane `main` has those of a device with one source. */
export function deploymentPath(directory: string, lane: string): string {
  return join(directory, lane === MAIN_LANE ? "deployment.json" : `deployment-${lane}.json`);
}

export function frameMarkPath(directory: string, lane: string): string {
  return join(directory, lane === MAIN_LANE ? "frame.mark" : `frame-${lane}.mark`);
}

/** Of the candidate beside the lane. */
export function shadowMarkPath(directory: string, lane: string): string {
  return join(directory, lane === MAIN_LANE ? "shadow.mark" : `shadow-${lane}.mark`);
}

/** The lane whose deployment a file of the state folder holds; undefined for any other file. */
export function laneOfDeploymentFile(name: string): string | undefined {
  if (name === "deployment.json") return MAIN_LANE;
  return /^deployment-([a-z0-9][a-z0-9-]{0,31})\.json$/.exec(name)?.[1];
}
