import { toFieldloopError } from "@fieldloop/protocol";
import { decodeModel, embeddingCandidate, modelCost, type ModelCost, type Tensor } from "@fieldloop/runtime";
import {
  ableProviders,
  candidateProviders,
  profileTensors,
  type ProviderAbility,
} from "@fieldloop/runtime/node";
import { printTable } from "../output.js";
import { formatBytes } from "./model-options.js";

/** What one run on this machine's CPU showed, or why there is none. */
export type MeasuredCost =
  | (ModelCost & { readonly providers: readonly ProviderAbility[]; readonly embedding: string | null })
  | { readonly reason: string };

const INSPECT_TIMEOUT_MS = 20_000;
/** Characters of a reason on a terminal; JSON has it whole. */
const REASON_SHOWN = 160;

/** Runs a model once on zeros, in a process of its own, and counts. */
export async function measureCost(
  bytes: Uint8Array,
  feeds: Record<string, Tensor>,
  everyProvider: boolean,
): Promise<MeasuredCost> {
  try {
    const { tensors } = await profileTensors(bytes, feeds, { timeoutMs: INSPECT_TIMEOUT_MS });
    const model = decodeModel(bytes);
    const others = everyProvider ? candidateProviders([]).filter((name) => name !== "cpu") : [];
    return {
      ...modelCost(model, tensors),
      // It ran there already.
      providers: [
        { executionProvider: "cpu", reason: undefined, shares: { cpu: 1 } },
        ...(await ableProviders(bytes, feeds, others, { timeoutMs: INSPECT_TIMEOUT_MS })),
      ],
      embedding: embeddingCandidate(model) ?? null,
    };
  } catch (error) {
    return { reason: toFieldloopError(error).message };
  }
}

export function printCost(cost: MeasuredCost): void {
  if ("reason" in cost) {
    process.stdout.write(`cost: not known (--dim gives open dimensions a size): ${cost.reason}\n`);
    return;
  }
  printTable([
    ["multiply-accumulates", "FLOPs", "activations at once", "largest"],
    [
      formatCount(cost.macs),
      formatCount(cost.flops),
      formatBytes(cost.activationBytesPeak),
      formatBytes(cost.activationBytesMax),
    ],
  ]);
  printTable([
    ["execution provider", "runs it"],
    ...cost.providers.map(({ executionProvider, reason, shares }) => [
      executionProvider,
      reason === undefined
        ? `yes${shares === undefined ? "" : `, ${formatShares(shares)}`}`
        : `no: ${reason.slice(0, REASON_SHOWN)}`,
    ]),
  ]);
  printTable([
    ["operator", "nodes", "multiply-accumulates", "share", "parameters", "elements written"],
    ...cost.operators.map(({ operator, nodes, macs, parameters, outputElements }) => [
      operator,
      String(nodes),
      formatCount(macs),
      cost.macs === 0 ? "-" : `${((macs / cost.macs) * 100).toFixed(1)} %`,
      formatCount(parameters),
      formatCount(outputElements),
    ]),
  ]);
  if (cost.uncounted > 0)
    process.stdout.write(`${cost.uncounted} nodes are not counted (bodies, unknown shapes)\n`);
  if (cost.embedding !== null) {
    process.stdout.write(`embedding candidate: ${cost.embedding} (fieldloop model edit --embedding)\n`);
  }
}

function formatShares(shares: Readonly<Record<string, number>>): string {
  return Object.entries(shares)
    .map(([name, share]) => `${(share * 100).toFixed(0)} % of the nodes on ${name}`)
    .join(", ");
}

/** `12.3 M` */
export function formatCount(count: number): string {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (count >= size) return `${(count / size).toFixed(count >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return String(count);
}
