import { incompatibility, type Facts, type Incompatibility, type Manifest } from "@fieldloop/protocol";

/** Whether a package fits devices with these facts; a device checks again before it downloads anything. */
export type FitCheck = (facts: Facts) => Incompatibility | undefined;

/** Asked once per kind of device: devices with the same facts share one record of them. */
export function fitCheckOf(manifest: Manifest, deviceClasses: readonly string[] | null = null): FitCheck {
  const known = new WeakMap<Facts, { found: Incompatibility | undefined }>();
  return (facts) => {
    let answer = known.get(facts);
    if (!answer) known.set(facts, (answer = { found: incompatibility(manifest, facts, { deviceClasses }) }));
    return answer.found;
  };
}
