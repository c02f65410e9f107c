import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CONTRACT_CASES, contractModels } from "@fieldloop/runtime/contract";
import { writeModels, type ModelFolder } from "./local.js";
import { ModelServer, servedSubject } from "./served.js";

describe("backend contract: Open Inference Protocol", () => {
  let folder: ModelFolder;
  let server: ModelServer;
  beforeAll(async () => {
    folder = await writeModels();
    const paths = [...contractModels().values()].map((model) => folder.pathOf(model));
    const where = ["--port", "0", "--grpc-port", "0", "--socket", join(folder.dir, "s.sock")];
    server = await ModelServer.start([...paths, ...where]);
  }, 90_000);
  afterAll(async () => {
    expect(await server.end()).toBe(0);
    await folder.remove();
  });

  for (const scheme of ["http", "unix", "grpc"] as const) {
    describe(`over ${scheme}`, () => {
      it.each(CONTRACT_CASES)("$name", ({ run }) => run(servedSubject(server.providerPrefix(scheme))));
    });
  }
});
