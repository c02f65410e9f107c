import type { ErrorCode, Facts, Manifest } from "@fieldloop/protocol";

/** Why a package does not fit a kind of device. */
export interface Misfit {
  readonly code: ErrorCode;
  readonly message: string;
}

/** Whether a package fits devices with these facts; a device checks again before it downloads anything. */
export type FitCheck = (facts: Facts) => Misfit | null;

/** Some variant must have an execution provider of the device and fit its memory. Asked once per kind of device. */
export function fitCheckOf(manifest: Pick<Manifest, "model" | "version" | "variants">): FitCheck {
  const known = new WeakMap<Facts, { misfit: Misfit | null }>();
  return (facts) => {
    let answer = known.get(facts);
    if (!answer) known.set(facts, (answer = { misfit: check(manifest, facts) }));
    return answer.misfit;
  };
}

function check(
  { model, version, variants }: Pick<Manifest, "model" | "version" | "variants">,
  facts: Facts,
): Misfit | null {
  const fits = variants.some(
    ({ executionProviders, memoryBytesMax = 0 }) =>
      executionProviders.some((provider) => facts.executionProviders.includes(provider)) &&
      memoryBytesMax <= facts.memoryBytes,
  );
  if (fits) return null;
  const wanted = [...new Set(variants.flatMap(({ executionProviders }) => executionProviders))].join(", ");
  return {
    code: "package_incompatible",
    message: `${model}@${version} runs on ${wanted}; the device has ${facts.executionProviders.join(", ")} and ${facts.memoryBytes} bytes of memory`,
  };
}
