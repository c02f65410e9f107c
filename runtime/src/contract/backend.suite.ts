import type { ErrorCode } from "@fieldloop/protocol";
import type { ElementType, Session, Tensor } from "../backend.js";
import { CONTRACT_TYPES, LARGE_DIMS, ODD_NAMES, contractModels, type ContractModel } from "./models.js";

/**
 * What every backend must do, as plain functions that throw: they run under any test runner and in a page. A subject opens the
 * suite's networks its own way (by path, from bytes, by their name on a server).
 */
export interface ContractSubject {
  open(model: ContractModel): Promise<Session>;
  /** What ONNX Runtime on the CPU gives for the model's feeds. */
  reference(model: ContractModel): Promise<Readonly<Record<string, Tensor>>>;
  /** Opens something that is no model, or a model that is not there. */
  openBroken(): Promise<Session>;
  /** Sizes come back with the names of their symbols; a served model has only -1. Default true. */
  readonly namesSymbols?: boolean;
}

export interface ContractCase {
  readonly name: string;
  readonly run: (subject: ContractSubject) => Promise<void>;
}

const MODELS = contractModels();
const OPEN_AND_RELEASE_RUNS = 20;
const CONCURRENT_RUNS = 8;

const EQUAL_TO_CPU = ["conv", "gemm", "int8", "fp16", "lstm", "if", "scalars", "several"] as const;

export interface ContractResult {
  readonly name: string;
  /** Why the case failed; undefined where it holds. */
  readonly failure: string | undefined;
}

/** Runs every case: for places without a test runner, as a page or a process with another environment. */
export async function runContract(subject: ContractSubject): Promise<ContractResult[]> {
  const results: ContractResult[] = [];
  for (const { name, run } of CONTRACT_CASES) {
    const failure = await run(subject).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? (error.stack ?? error.message) : String(error)),
    );
    results.push({ name, failure });
  }
  return results;
}

/** The contract, case by case. */
export const CONTRACT_CASES: readonly ContractCase[] = [
  { name: "signature: names, types, sizes", run: signature },
  ...CONTRACT_TYPES.map((type) => ({
    name: `${type} goes in and comes out with every bit`,
    run: (subject: ContractSubject) => roundTrip(subject, type),
  })),
  { name: "scalars have no dimensions", run: scalarDims },
  { name: "symbolic dimensions take any size, another one each run", run: symbolicSizes },
  { name: "an empty dimension is a tensor like others", run: emptyDimension },
  { name: "odd names of inputs and outputs", run: oddNames },
  { name: "only the outputs that are asked for", run: fetches },
  ...EQUAL_TO_CPU.map((name) => ({
    name: `equal to the CPU: ${name}`,
    run: (subject: ContractSubject) => equalToCpu(subject, name),
  })),
  { name: "the other branch of an If", run: otherBranch },
  { name: "the same tensor object with new values is read anew", run: refilled },
  { name: "results of one run survive the next", run: resultsStay },
  { name: "a tensor of 12 MB", run: large },
  { name: "wrong feeds are refused by code, and the session goes on", run: wrongFeeds },
  { name: "something that is no model is refused by code", run: broken },
  { name: "two sessions at a time", run: concurrent },
  { name: "release waits, is idempotent, and nothing runs after it", run: release },
  { name: `opened and released ${OPEN_AND_RELEASE_RUNS} times`, run: openedOften },
];

async function signature(subject: ContractSubject): Promise<void> {
  await withSession(subject, "several", async (session) => {
    const names = (list: Session["inputs"]): string =>
      list
        .map(({ name, type, dims }) => `${name}:${type}[${dims.join(",")}]`)
        .sort()
        .join(" ");
    equal(names(session.inputs), "a:float32[2,2] b:float32[2,2] keep:bool[2,2]", "inputs");
    equal(
      names(session.outputs),
      "picked:float32[2,2] product:float32[2,2] shape:int64[2] sum:float32[2,2]",
      "outputs",
    );
    equal(session.omitted.length, 0, "omitted outputs");
  });
  await withSession(subject, "symbolic", async (session) => {
    const [batch, three, nameless] = session.inputs[0]!.dims;
    equal(three, 3, "fixed size");
    if (subject.namesSymbols === false) equal(batch, -1, "symbolic size");
    else equal(batch, "batch", "symbolic size");
    equal(nameless, -1, "size without a name");
  });
}

async function roundTrip(subject: ContractSubject, type: ElementType): Promise<void> {
  await withSession(subject, `identity-${type}`, async (session, { feeds }) => {
    equal(session.inputs[0]!.type, type, "type of the input");
    const { y } = await session.run(feeds);
    same(y, feeds["x"]!);
  });
}

async function scalarDims(subject: ContractSubject): Promise<void> {
  await withSession(subject, "scalars", async (session, { feeds }) => {
    const { y } = await session.run(feeds);
    equal(y!.dims.length, 0, "rank");
    equal((y!.data as Float32Array)[0], 24, "value");
  });
}

async function symbolicSizes(subject: ContractSubject): Promise<void> {
  await withSession(subject, "symbolic", async (session) => {
    for (const batch of [1, 4, 2]) {
      const data = Float32Array.from({ length: batch * 3 * 2 }, (_, at) => at - 3);
      const { y } = await session.run({ x: { type: "float32", dims: [batch, 3, 2], data } });
      same(y, { type: "float32", dims: [batch, 3, 2], data: data.map((value) => Math.max(value, 0)) });
    }
  });
}

async function emptyDimension(subject: ContractSubject): Promise<void> {
  await withSession(subject, "empty", async (session, { feeds }) => {
    same((await session.run(feeds))["y"], feeds["b"]!);
    const nothing = await session.run({ a: feeds["a"]!, b: feeds["a"]! });
    equal(nothing["y"]!.dims.join(), "0,3", "sizes of nothing");
    equal(nothing["y"]!.data.length, 0, "elements of nothing");
  });
}

async function oddNames(subject: ContractSubject): Promise<void> {
  await withSession(subject, "odd-names", async (session, { feeds }) => {
    const { input, second, output, third } = ODD_NAMES;
    const results = await session.run(feeds);
    const a = feeds[input]!.data as Float32Array;
    const b = feeds[second]!.data as Float32Array;
    near(
      results[output],
      a.map((value, at) => value + b[at]!),
      1e-6,
      output,
    );
    near(
      results[third],
      a.map((value, at) => value - b[at]!),
      1e-6,
      third,
    );
  });
}

async function fetches(subject: ContractSubject): Promise<void> {
  await withSession(subject, "several", async (session, { feeds }) => {
    const results = await session.run(feeds, ["product", "shape"]);
    equal(Object.keys(results).sort().join(), "product,shape", "outputs");
    same(results["shape"], { type: "int64", dims: [2], data: BigInt64Array.of(2n, 2n) });
  });
}

async function equalToCpu(subject: ContractSubject, name: string): Promise<void> {
  await withSession(subject, name, async (session, model) => {
    const results = await session.run(model.feeds);
    const expected = await subject.reference(model);
    equal(Object.keys(results).sort().join(), Object.keys(expected).sort().join(), "outputs");
    for (const [output, tensor] of Object.entries(expected)) {
      equal(results[output]!.dims.join(), tensor.dims.join(), `sizes of ${output}`);
      near(results[output], tensor.data as Float32Array, model.tolerance, output);
    }
  });
}

async function otherBranch(subject: ContractSubject): Promise<void> {
  await withSession(subject, "if", async (session, { feeds }) => {
    const x = feeds["x"]!.data as Float32Array;
    const { y } = await session.run({ ...feeds, double: { type: "bool", dims: [], data: Uint8Array.of(0) } });
    near(
      y,
      x.map((value) => value + 2),
      1e-6,
      "else",
    );
  });
}

async function refilled(subject: ContractSubject): Promise<void> {
  await withSession(subject, "symbolic", async (session) => {
    const data = new Float32Array(3);
    const feeds: Record<string, Tensor> = { x: { type: "float32", dims: [1, 3, 1], data } };
    for (const value of [1, 2, 3]) {
      data.fill(value);
      const { y } = await session.run(feeds);
      equal((y!.data as Float32Array)[2], value, "value");
    }
  });
}

async function resultsStay(subject: ContractSubject): Promise<void> {
  await withSession(subject, "gemm", async (session, { feeds }) => {
    const first = (await session.run(feeds))["y"]!;
    const before = Float32Array.from(first.data as Float32Array);
    const zeros = new Float32Array(4 * 32);
    await session.run({ x: { type: "float32", dims: [4, 32], data: zeros } });
    same(first, { ...first, data: before });
  });
}

async function large(subject: ContractSubject): Promise<void> {
  await withSession(subject, "large", async (session, { feeds }) => {
    const { y } = await session.run(feeds);
    equal(y!.dims.join(), LARGE_DIMS.join(), "sizes");
    const x = feeds["x"]!.data as Float32Array;
    const negated = y!.data as Float32Array;
    that(
      x.every((value, at) => negated[at] === -value),
      "every element is negated",
    );
  });
}

async function wrongFeeds(subject: ContractSubject): Promise<void> {
  await withSession(subject, "gemm", async (session, { feeds }) => {
    const x = feeds["x"]!;
    const cases: Record<string, () => Promise<unknown>> = {
      "a missing input": () => session.run({}),
      "an unknown input": () => session.run({ x, y: x }),
      "another type": () =>
        session.run({ x: { type: "float64", dims: [4, 32], data: new Float64Array(128) } }),
      "an array of another type": () => session.run({ x: { ...x, data: new Int32Array(128) } }),
      "another size": () =>
        session.run({ x: { type: "float32", dims: [4, 31], data: new Float32Array(124) } }),
      "another rank": () => session.run({ x: { type: "float32", dims: [128], data: new Float32Array(128) } }),
      "too few elements": () => session.run({ x: { ...x, data: new Float32Array(127) } }),
      "a negative size": () => session.run({ x: { ...x, dims: [-4, -32] } }),
      "an unknown output": () => session.run(feeds, ["nothing"]),
      "no output": () => session.run(feeds, []),
    };
    for (const [what, run] of Object.entries(cases)) await refused(run, ["tensor_invalid"], what);
    equal((await session.run(feeds))["y"]!.dims.join(), "4,10", "a run afterwards");
  });
}

async function broken(subject: ContractSubject): Promise<void> {
  await refused(() => subject.openBroken(), ["model_load_failed", "not_found", "onnx_malformed"], "open");
}

async function concurrent(subject: ContractSubject): Promise<void> {
  await withSession(subject, "conv", async (conv, convModel) => {
    await withSession(subject, "gemm", async (gemm, gemmModel) => {
      const runs = Array.from({ length: CONCURRENT_RUNS }, (_, at) =>
        at % 2 === 0 ? conv.run(convModel.feeds) : gemm.run(gemmModel.feeds),
      );
      const results = await Promise.all(runs);
      const [convExpected, gemmExpected] = [
        await subject.reference(convModel),
        await subject.reference(gemmModel),
      ];
      results.forEach(({ y }, at) => {
        const expected = at % 2 === 0 ? convExpected : gemmExpected;
        near(y, expected["y"]!.data as Float32Array, 1e-4, `run ${at}`);
      });
    });
  });
}

async function release(subject: ContractSubject): Promise<void> {
  const model = MODELS.get("gemm")!;
  const session = await subject.open(model);
  const running = session.run(model.feeds);
  await Promise.all([session.release(), session.release()]);
  equal((await running)["y"]!.dims.join(), "4,10", "the run that release waited for");
  await session.release();
  await refused(() => session.run(model.feeds), ["conflict"], "a run after release");
}

async function openedOften(subject: ContractSubject): Promise<void> {
  const model = MODELS.get("gemm")!;
  const expected = await subject.reference(model);
  for (let run = 0; run < OPEN_AND_RELEASE_RUNS; run++) {
    const session = await subject.open(model);
    const { y } = await session.run(model.feeds);
    await session.release();
    near(y, expected["y"]!.data as Float32Array, model.tolerance, `opening ${run}`);
  }
}

async function withSession(
  subject: ContractSubject,
  name: string,
  work: (session: Session, model: ContractModel) => Promise<void>,
): Promise<void> {
  const model = MODELS.get(name)!;
  const session = await subject.open(model);
  try {
    await work(session, model);
  } finally {
    await session.release();
  }
}

async function refused(
  run: () => Promise<unknown>,
  codes: readonly ErrorCode[],
  what: string,
): Promise<void> {
  let code: unknown;
  try {
    await run();
  } catch (error) {
    code = (error as { code?: unknown }).code;
    that(
      codes.some((wanted) => wanted === code),
      `${what}: code ${String(code)} (${String(error)}), wanted ${codes.join(" or ")}`,
    );
    return;
  }
  that(false, `${what} was not refused`);
}

function same(actual: Tensor | undefined, expected: Tensor): void {
  equal(actual?.type, expected.type, "type");
  equal(actual!.dims.join(), expected.dims.join(), "sizes");
  equal(actual!.data.constructor.name, expected.data.constructor.name, "array");
  equal(actual!.data.length, expected.data.length, "elements");
  expected.data.forEach((value: unknown, at: number) => {
    that(
      Object.is(actual!.data[at], value),
      `element ${at} is ${String(actual!.data[at])}, wanted ${String(value)}`,
    );
  });
}

function near(
  actual: Tensor | undefined,
  expected: ArrayLike<number | bigint>,
  tolerance: number,
  what: string,
): void {
  equal(actual?.data.length, expected.length, `elements of ${what}`);
  for (let at = 0; at < expected.length; at++) {
    const difference = Math.abs(Number(actual!.data[at]) - Number(expected[at]));
    that(
      difference <= tolerance,
      `${what}[${at}] is ${String(actual!.data[at])}, wanted ${String(expected[at])}`,
    );
  }
}

function equal(actual: unknown, expected: unknown, what: string): void {
  that(Object.is(actual, expected), `${what}: ${String(actual)}, wanted ${String(expected)}`);
}

function that(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}
