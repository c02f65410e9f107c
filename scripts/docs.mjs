/** Writes the generated references. Run by `npm run docs` after a build. */
import { writeFileSync } from "node:fs";
import { protocolReference } from "@fieldloop/protocol";

writeFileSync(new URL("../docs/protocol.md", import.meta.url), protocolReference());
