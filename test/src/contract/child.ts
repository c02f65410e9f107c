import { runContract } from "@fieldloop/runtime/contract";
import { localSubject, writeModels } from "./local.js";

/** Entry of a process with an environment of its own: runs the suite on the named provider, prints the results as JSON. */
const folder = await writeModels();
try {
  const results = await runContract(localSubject(process.argv[2] ?? "cpu", folder));
  process.stdout.write(JSON.stringify(results));
} finally {
  await folder.remove();
}
