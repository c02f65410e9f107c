import { afterAll, beforeAll, describe, it } from "vitest";
import { CONTRACT_CASES, type ContractSubject } from "@fieldloop/runtime/contract";
import { localSubject, writeModels, type ModelFolder } from "./local.js";

for (const executionProvider of ["cpu", "wasm"]) {
  describe(`backend contract: ${executionProvider} in Node`, () => {
    let folder: ModelFolder;
    let subject: ContractSubject;
    beforeAll(async () => {
      folder = await writeModels();
      subject = localSubject(executionProvider, folder);
    });
    afterAll(() => folder.remove());

    it.each(CONTRACT_CASES)("$name", ({ run }) => run(subject));
  });
}
