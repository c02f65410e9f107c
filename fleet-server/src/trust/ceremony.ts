import {
  changeKeysRequestSchema,
  FieldloopError,
  type ChangeKeysRequest,
  type SignaturesFile,
  type SigningRequest,
  type TrustKey,
  type TrustOutcome,
  type TrustRole,
} from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { TrustStore } from "../store/trust.js";
import { describeRoles } from "./describe.js";
import type { DirectorKeys } from "./director.js";
import { keyIdsOf, rolesOf, sameRoles, type Head, type RootRoles } from "./documents.js";
import type { KeyRing } from "./key-ring.js";
import type { Draft } from "./publication.js";
import { checkSignatures, makeRequest } from "./request.js";
import type { TrustService } from "./service.js";
import { isSatisfied } from "./signatures.js";
import type { Signer } from "./signer.js";
import { changeRoles } from "./staging.js";
import { closeRequest } from "./synchronizer.js";
import { isOnline } from "./view.js";

export interface KeyCeremonyOptions {
  readonly trust: TrustService;
  readonly database: Database;
  readonly ring: KeyRing;
  readonly director: DirectorKeys;
  readonly clock: Clock;
  readonly newId: (prefix: string) => string;
}

export interface RequestOptions {
  /** In place of an open one, whose signatures are then worth nothing. */
  readonly replace?: boolean;
  /** Ask for these though they are good still. */
  readonly renew?: readonly ("root" | "targets")[];
  /** Only this document, where both want signatures and do not need each other. */
  readonly only?: "root" | "targets";
}

/**
 * What administrators do with keys: each change is decided here and now, and comes into force at once where the keys at hand suffice,
 * else when the owners of the others have answered a signing request. Every step is in the audit log.
 */
export class KeyCeremony {
  readonly #options: KeyCeremonyOptions;

  constructor(options: KeyCeremonyOptions) {
    this.#options = options;
  }

  /**
   * Adds, revokes and replaces keys of a role and sets its threshold.
   * @throws FieldloopError `invalid_argument` for what no root may say, `conflict` while a request for a root is open,
   * `trust_key_unavailable` for snapshot or timestamp keys that this server does not have
   */
  changeKeys(input: ChangeKeysRequest, actor: string): Promise<TrustOutcome> {
    const change = changeKeysRequestSchema.parse(input);
    const { trust, ring } = this.#options;
    return trust.exclusive(async () => {
      await this.#refuseWhileAsked("root");
      const head = await trust.head();
      const inForce = rolesOf(head.root.metadata.signed);
      const before = (await trust.synchronizer.staged()) ?? inForce;
      // Judged before a key is made for it.
      const placeholders = Array.from({ length: change.create }, (_, at) => placeholder(at));
      changeRoles(before, change, placeholders);
      const created: TrustKey[] = [];
      for (let index = 0; index < change.create; index++) created.push(await ring.create());
      const roles = changeRoles(before, change, created);
      this.#refuseOffline(change.role, roles, await ring.signers());
      const text = sameRoles(roles, inForce) ? undefined : JSON.stringify(roles);
      await this.#options.database.transaction(async (tx) => {
        await new TrustStore(tx).setValue("staged", text);
        await this.#audit(tx, actor, "trust.keys_changed", {
          role: change.role,
          changes: describeRoles(inForce, roles),
        });
      });
      await this.#synchronize(actor);
      const waits = (await trust.synchronizer.staged()) !== undefined;
      return this.#outcome(waits, text === undefined ? "Nothing is different now" : "The keys are in force");
    });
  }

  /** A new director key: it signs from the moment that devices can know it. */
  rotateDirector(actor: string): Promise<TrustOutcome> {
    const { trust, director } = this.#options;
    return trust.exclusive(async () => {
      await this.#refuseWhileAsked("targets");
      await director.stage();
      const keyId = director.next!.keyId;
      await this.#audit(this.#options.database, actor, "trust.director_rotated", { keyId });
      await this.#synchronize(actor);
      return this.#outcome(director.next !== undefined, `The director key is "${keyId}"`);
    });
  }

  /**
   * Asks the owners of other keys: one request at a time, with everything that waits.
   * @throws FieldloopError `conflict` where nothing waits for a signature
   */
  request(options: RequestOptions, actor: string): Promise<SigningRequest> {
    const { trust, ring, clock, database } = this.#options;
    return trust.exclusive(async () => {
      await this.#synchronize(actor);
      const open = await trust.synchronizer.request();
      if (open && options.replace !== true) return open;
      const signers = await ring.signers();
      const draft = await this.#draft(await trust.head(), signers, options);
      if (!draft.root && !draft.targets) {
        throw new FieldloopError("conflict", "Make signing request: nothing waits for a signature");
      }
      const request = await makeRequest(await trust.head(), draft, { signers, now: clock.now(), actor });
      await database.transaction(async (tx) => {
        await closeRequest(tx);
        await new TrustStore(tx).setValue("request", JSON.stringify(request));
        await this.#audit(tx, actor, "trust.request_made", {
          request: request.request,
          documents: request.documents.map(({ role, version, sha256 }) => ({ role, version, sha256 })),
        });
      });
      return request;
    });
  }

  /** The open request. @throws FieldloopError `not_found` */
  async openRequest(): Promise<SigningRequest> {
    const open = await this.#options.trust.synchronizer.request();
    if (open) return open;
    throw new FieldloopError("not_found", "Read signing request: none is open");
  }

  /** Takes signatures in; what has enough of them is in force at once. @throws FieldloopError `trust_request_stale`, `trust_signature_insufficient` */
  importSignatures(file: SignaturesFile, actor: string): Promise<TrustOutcome> {
    const { trust, database } = this.#options;
    return trust.exclusive(async () => {
      const open = await trust.synchronizer.request();
      if (!open) {
        throw new FieldloopError(
          "trust_request_stale",
          `Import signatures: "${file.request}" is not open: it was answered, overtaken or withdrawn`,
        );
      }
      const signatures = checkSignatures(open, file);
      await database.transaction(async (tx) => {
        for (const signature of signatures) await new TrustStore(tx).addSignature(open.request, signature);
        await this.#audit(tx, actor, "trust.signatures_imported", {
          request: open.request,
          signatures: signatures.map(({ role, keyId }) => ({ role, keyId })),
        });
      });
      await this.#synchronize(actor);
      const waits = (await trust.synchronizer.request()) !== undefined;
      return this.#outcome(waits, `"${open.request}" is in force`);
    });
  }

  /** Drops the open request, staged keys and a director key that waits; published versions go on waiting. */
  withdraw(actor: string): Promise<TrustOutcome> {
    const { trust, database, director } = this.#options;
    return trust.exclusive(async () => {
      const open = await trust.synchronizer.request();
      await database.transaction(async (tx) => {
        await closeRequest(tx);
        await new TrustStore(tx).setValue("staged", undefined);
        await this.#audit(tx, actor, "trust.withdrawn", { request: open?.request ?? null });
      });
      if (director.next) await director.unstage();
      await this.#synchronize(actor);
      return this.#outcome(false, "Nothing is staged any more");
    });
  }

  /** Makes metadata of these roles anew, with another expiry. */
  renew(roles: readonly TrustRole[], actor: string): Promise<TrustOutcome> {
    const { trust } = this.#options;
    return trust.exclusive(async () => {
      const published = await trust.synchronizeNow(actor, roles);
      const left = roles.filter((role) => !published.has(role));
      const outcome = await this.#outcome(left.length > 0, `Renewed: ${roles.join(", ")}`);
      if (left.length === 0) return outcome;
      return {
        ...outcome,
        detail: `The keys of ${left.join(" and ")} are not here: ask their owners with "fieldloop keys request --renew ${left[0]}"`,
      };
    });
  }

  /** A key of snapshot or timestamp that cannot sign holds up what was published; it must not hold up its own replacement. */
  async #synchronize(actor: string): Promise<void> {
    try {
      await this.#options.trust.synchronizeNow(actor);
    } catch (error) {
      if (!(error instanceof FieldloopError) || error.code !== "trust_key_unavailable") throw error;
    }
  }

  /** What only keys elsewhere can sign: a root, targets, or targets that go with a root because their keys change. */
  async #draft(head: Head, signers: ReadonlyMap<string, Signer>, options: RequestOptions): Promise<Draft> {
    const { synchronizer } = this.#options.trust;
    const wanted = await synchronizer.wantedDraft(head, new Set<TrustRole>(options.renew ?? []));
    const before = rolesOf(head.root.metadata.signed);
    const root = options.only === "targets" ? undefined : wanted.root;
    const after = root ? rolesOf(root) : before;
    const signedAgain = !isSatisfied(head.targets.metadata, after.targets);
    const changed = options.only === "root" ? undefined : wanted.targets;
    const targets =
      (signedAgain || changed) && !isOnline(after.targets, signers)
        ? (changed ?? (await synchronizer.nextTargets(head)))
        : undefined;
    const rootIsHere = isOnline(before.root, signers) && isOnline(after.root, signers);
    return {
      ...(root && (targets || !rootIsHere) ? { root } : {}),
      ...(targets ? { targets } : {}),
    };
  }

  /** A document that owners are asked to sign must stay as they see it. */
  async #refuseWhileAsked(role: "root" | "targets"): Promise<void> {
    const open = await this.#options.trust.synchronizer.request();
    if (!open?.documents.some((document) => document.role === role)) return;
    throw new FieldloopError(
      "conflict",
      `Change keys: "${open.request}" is open; import its signatures, or withdraw it ("fieldloop keys request --withdraw")`,
    );
  }

  #refuseOffline(role: TrustRole, roles: RootRoles, signers: ReadonlyMap<string, Signer>): void {
    if (role === "root" || role === "targets" || isOnline(roles[role], signers)) return;
    const here = keyIdsOf(roles[role]).filter((keyId) => signers.has(keyId)).length;
    throw new FieldloopError(
      "trust_key_unavailable",
      `Change keys of "${role}": the server signs it by itself and would have ${here} of ${roles[role].threshold} keys`,
    );
  }

  async #outcome(waits: boolean, done: string): Promise<TrustOutcome> {
    return {
      state: waits ? "awaiting_signature" : "in_force",
      detail: waits ? 'It waits for signatures: make a request with "fieldloop keys request"' : done,
      view: await this.#options.trust.view(),
    };
  }

  #audit(
    database: Database,
    actor: string,
    action: string,
    detail: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const { newId, clock } = this.#options;
    const entry = { entry: newId("aud"), time: clock.now(), actor, action, subject: "trust", detail };
    return new AuditStore(database).add(entry);
  }
}

/** Stands for a key that is not made yet. */
function placeholder(at: number): TrustKey {
  return {
    keytype: "ed25519",
    scheme: "ed25519",
    keyval: { public: at.toString(16).padStart(64, "0") },
  };
}
