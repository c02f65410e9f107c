import { candidateProviders, chooseProviders, openPackage } from "@fieldloop/runtime/node";
import { MODEL_MARK } from "../control/provider-plans.js";
import type { ControlRequest, SelfTest, WireFailure } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { likelyAccelerators } from "./accelerators.js";
import { HostModel } from "./model.js";

type SelfTestRequest = Extract<ControlRequest, { kind: "self_test" }>;
/** Of the processes in which providers are tried: drivers are found by it. */
type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Golden cases of a package on the execution provider that it will run on: the fastest that gives the right results where one is
 * searched for, else the first that it names, or the CPU. Every provider is tried in a process of its own.
 * @throws FieldloopError `golden_case_failed`, `model_run_failed`, and the codes of {@link HostModel.load}
 */
export async function selfTest(request: SelfTestRequest, environment: Environment): Promise<SelfTest> {
  const found = await searched(request, environment);
  const before = process.memoryUsage.rss();
  const model = await HostModel.load(
    request.package,
    { threadCount: request.threadCount, runMsMax: AGENT_LIMITS.quickRunMsMax, isBusy: false },
    (found ?? request.package).providers?.[0],
  );
  try {
    const tested = await model.selfTest();
    return { ...tested, memoryBytes: Math.max(0, tested.residentBytes - before), ...found };
  } finally {
    await model.close();
  }
}

/**
 * Those that give the right results: what was asked for in its order, else the fastest first. Undefined without a search, and where
 * there is nothing to choose from but the CPU with one variant. Where none is right the CPU's own failure is the reason.
 */
async function searched(
  request: SelfTestRequest,
  environment: Environment,
): Promise<Pick<SelfTest, "providers" | "providerTrouble"> | undefined> {
  const { search } = request;
  if (!search) return undefined;
  const { directory, threadCount } = search;
  const { manifest } = await openPackage(request.package.directory, { purpose: "running" });
  const forModel = (name: string): string => name.replace(MODEL_MARK, encodeURIComponent(manifest.model));
  const endpoints = search.endpoints.map(forModel);
  const asked = search.executionProviders?.map(forModel);
  const executionProviders = asked ?? [
    ...endpoints,
    ...likelyAccelerators(candidateProviders([]), environment),
    "cpu",
  ];
  if (executionProviders.length === 1 && manifest.variants.length === 1) return undefined;
  const { choices } = await chooseProviders(request.package.directory, {
    directory,
    threadCount,
    endpoints,
    environment,
    // The one that always works goes first: a driver that never comes to an end must not cost its turn.
    executionProviders: ["cpu", ...executionProviders.filter((name) => name !== "cpu")],
    timeoutMs: AGENT_LIMITS.probeTimeoutMs,
    totalMs: AGENT_LIMITS.probesTimeoutMs,
    // Whether a server answers today says nothing of tomorrow.
    fresh: endpoints.length > 0,
  });
  const correct = choices.filter((choice) => choice.correct);
  const place = (name: string): number => asked?.indexOf(name) ?? 0;
  correct.sort((a, b) => place(a.executionProvider) - place(b.executionProvider));
  const providers = correct.map(({ executionProvider, variant, shares, medianMs }) => ({
    executionProvider,
    variant,
    ...(medianMs === null ? {} : { medianMs }),
    ...(shares === null ? {} : { shares }),
  }));
  const first = asked?.[0];
  if (first === undefined || correct[0]?.executionProvider === first) return { providers };
  const failed = choices.find((choice) => choice.executionProvider === first);
  return { providers, providerTrouble: troubleOf(first, failed?.reason) };
}

/** Why the provider that was asked for does not run the package. */
function troubleOf(
  asked: string,
  reason: { readonly code: string; readonly message: string } | undefined,
): WireFailure {
  const why = reason ? `${reason.code}: ${reason.message}` : "it has no variant for it";
  return { code: "provider_unavailable", message: `Run on "${asked}": it does not run the package (${why})` };
}
