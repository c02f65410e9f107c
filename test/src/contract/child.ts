import { runContract } from "@fieldloop/runtime/contract";
import { localSubject, writeModels } from "./local.js";
import { whileWarm } from "./warm.js";

/** Entry of a process with an environment of its own: runs the suite on the named provider, prints the results as JSON. */
const folder = await writeModels();
try {
  const subject = localSubject(process.argv[2] ?? "cpu", folder);
  const results = await whileWarm(
    (model) => subject.open(model),
    () => runContract(subject),
  );
  process.stdout.write(JSON.stringify(results));
} finally {
  await folder.remove();
}
