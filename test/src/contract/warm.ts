import type { Session } from "@fieldloop/runtime";
import { contractModels, type ContractModel } from "@fieldloop/runtime/contract";

/** Networks that several cases open, each for itself, and whose shaders are large. */
const OFTEN_OPENED = ["gemm", "conv"];

/**
 * Does some work while a session of these networks stays open. A graphics processor that is software compiles their shaders for seconds;
 * what a session still has is not compiled again for the next.
 */
export async function whileWarm<Result>(
  open: (model: ContractModel) => Promise<Session>,
  work: () => Promise<Result>,
): Promise<Result> {
  const kept: Session[] = [];
  try {
    for (const name of OFTEN_OPENED) {
      const model = contractModels().get(name)!;
      const session = await open(model);
      kept.push(session);
      await session.run(model.feeds);
    }
    return await work();
  } finally {
    for (const session of kept) await session.release();
  }
}
