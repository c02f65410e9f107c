import { afterAll, beforeAll, describe } from "vitest";
import { cliRows } from "./cli.suite.js";
import { guessRows, httpRows } from "./http.suite.js";
import { mqttRows } from "./mqtt.suite.js";
import { packageRows } from "./package.suite.js";
import { Stage } from "./stage.js";

describe("bad input against a server process", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start();
  });
  afterAll(() => stage.end());

  httpRows(() => stage);
  mqttRows(() => stage);
  packageRows(() => stage);
  cliRows(() => stage);
  guessRows(() => stage);
});
