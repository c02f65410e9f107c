import { FieldloopError } from "@fieldloop/protocol";
import type { BlobStore } from "../../blob/blob.js";
import { SERVER_LIMITS } from "../../limits.js";
import type { DeltaService } from "../../services/deltas.js";
import type { App } from "../env.js";
import { requireAnyone } from "../guards.js";
import { answerBlob, hashOf } from "./artifacts.js";

/**
 * What turns one model file into another, by their hashes: 404 where the whole file is the better way, 202 while the delta is being made
 * (then too a device may take the whole). A delta is an artifact: `ETag` and `Fieldloop-Delta-Bytes` say under which hash and with how many
 * bytes it may be fetched as one. The rebuilt file's own hash decides, so nothing here need be trusted.
 */
export function registerDeltaRoutes(app: App, deltas: DeltaService, blobs: BlobStore): void {
  app.on(["GET", "HEAD"], "/artifacts/delta/:from/:to", requireAnyone(), async (c) => {
    const [from, to] = [hashOf(c, "from"), hashOf(c, "to")];
    const outcome = await deltas.get(from, to);
    switch (outcome.kind) {
      case "none":
        throw new FieldloopError("not_found", `Read delta: there is none from "${from}" to "${to}"`);
      case "making":
        c.header("Retry-After", String(SERVER_LIMITS.deltaRetryAfterSeconds));
        return c.json({ state: "making" }, 202);
      case "ready":
        c.header("Fieldloop-Delta-Bytes", String(outcome.blob.bytes));
        return answerBlob(c, blobs, outcome.blob);
    }
  });
}
