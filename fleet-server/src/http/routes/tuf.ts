import { FieldloopError, TRUST_METADATA_PATH, TRUST_TARGETS_PATH } from "@fieldloop/protocol";
import type { BlobStore } from "../../blob/blob.js";
import type { TrustService } from "../../trust/service.js";
import type { App } from "../env.js";
import { requireAnyone } from "../guards.js";

/**
 * The trust repository as TUF clients read it: consistent snapshots (specification section 6.2), so that everything but the timestamp has a
 * name that never means anything else. Small files only: those of packages are artifacts.
 */
export function registerTufRoutes(app: App, trust: TrustService, blobs: BlobStore): void {
  app.get(`${TRUST_METADATA_PATH}:file`, requireAnyone(), async (c) => {
    const name = c.req.param("file");
    const bytes = await trust.file(name);
    if (!bytes)
      throw new FieldloopError("not_found", `Read trust metadata: there is no "${name.slice(0, 100)}"`);
    return c.body(new Uint8Array(bytes), 200, {
      "Content-Type": "application/json",
      "Cache-Control": name === "timestamp.json" ? "private, no-cache" : IMMUTABLE,
    });
  });
  app.get(`${TRUST_TARGETS_PATH}*`, requireAnyone(), async (c) => {
    const path = c.req.path.slice(TRUST_TARGETS_PATH.length);
    const [, folder, sha256, name] = /^((?:[^/]+\/)*)([0-9a-f]{64})\.([^/]+)$/.exec(path) ?? [];
    const target = sha256 === undefined ? undefined : await trust.target(`${folder}${name}`, sha256);
    if (!target) throw new FieldloopError("not_found", `Read target: there is no "${path.slice(0, 200)}"`);
    return c.body(new Uint8Array(await blobs.get(target.sha256)), 200, {
      "Content-Type": "application/octet-stream",
      "Cache-Control": IMMUTABLE,
      ETag: `"${target.sha256}"`,
    });
  });
}

const IMMUTABLE = "private, max-age=31536000, immutable";
