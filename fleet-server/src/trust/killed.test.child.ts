import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { TRUST_ROLES } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import { FileBlobStore } from "../blob/files.js";
import { systemClock } from "../context.js";
import { randomIds } from "../services/ids.js";
import { migrate } from "../store/migrate.js";
import { MIGRATIONS } from "../store/migrations.js";
import { openSqlite } from "../store/sqlite.js";
import { KeyCeremony } from "./ceremony.js";
import { DirectorKeys } from "./director.js";
import { KeyRing } from "./key-ring.js";
import { TrustService } from "./service.js";

/** A process that publishes versions and replaces keys without an end, until it is killed. Argument: its folder. */
const folder = process.argv[2]!;
const logger = { debug: quiet, info: quiet, warn: quiet, error: quiet };
const database = openSqlite(join(folder, "fieldloop.db"));
await migrate(database, MIGRATIONS, Date.now);
const blobs = new FileBlobStore(join(folder, "blobs"));
await blobs.open();
const ring = new KeyRing({
  folder: join(folder, "trust", "keys"),
  randomBytes: (length) => new Uint8Array(randomBytes(length)),
});
const director = new DirectorKeys(folder);
const base = {
  database,
  ring,
  director,
  clock: systemClock,
  newId: randomIds((length) => randomBytes(length)),
};
const trust = new TrustService({ ...base, blobs, logger });
await trust.open();
const ceremony = new KeyCeremony({ ...base, trust });
process.stdout.write("open\n");
const newest = await database.get<{ latest: number | null }>(
  sql`select max(version) as latest from model_versions`,
);
for (let version = (newest?.latest ?? 0) + 1; ; version++) {
  const bytes = Buffer.from(`parts ${version}`);
  const { sha256 } = await blobs.put(bytes);
  await database.run(sql`insert into model_versions (model, version, package_sha256, manifest_bytes, manifest, bytes, created,
      published, published_by)
    values ('parts', ${version}, ${sha256}, ${bytes.length}, '{}', ${bytes.length}, 0, 0, 'ann')`);
  await trust.settle();
  const role = TRUST_ROLES[version % 5];
  if (role) await ceremony.changeKeys({ role, create: 1, revokeAll: true }, "ann");
  else await ceremony.rotateDirector("ann");
  process.stdout.write(`${version}\n`);
}

function quiet(): void {}
