import {
  FieldloopError,
  signingRequestSchema,
  TRUST_ROLES,
  type SigningRequest,
  type TrustRole,
} from "@fieldloop/protocol";
import type { Root, Targets } from "@tufjs/models";
import type { Clock, Logger } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { TrustStore } from "../store/trust.js";
import type { TrustContents } from "./contents.js";
import {
  buildRoot,
  buildTargets,
  expiresTime,
  rolesOf,
  sameRoles,
  sameTargets,
  type Head,
  type RootRoles,
  type WantedTarget,
} from "./documents.js";
import { expiryOf, isRenewalDue } from "./expiry.js";
import type { KeyRing } from "./key-ring.js";
import { planPublication, type Draft, type PlanOptions, type Publication } from "./publication.js";
import type { TrustRepository } from "./repository.js";
import { draftOf } from "./request.js";
import { stagedRolesSchema } from "./staging.js";

export interface SynchronizerOptions {
  readonly database: Database;
  readonly repository: TrustRepository;
  readonly contents: TrustContents;
  readonly ring: KeyRing;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: (prefix: "aud") => string;
}

/** One publication, and what ends with it. */
interface Step {
  readonly publication: Publication;
  readonly closesRequest: boolean;
  readonly unstages: boolean;
}

/**
 * Brings what is published to what should be: staged keys, published versions, renewals. It publishes what the keys at hand suffice for, one
 * publication after the other, and leaves the rest waiting; called again after anything changed, and at each start, it goes on where it was.
 */
export class Synchronizer {
  readonly #options: SynchronizerOptions;
  readonly #store: TrustStore;

  constructor(options: SynchronizerOptions) {
    this.#options = options;
    this.#store = new TrustStore(options.database);
  }

  /**
   * @param renew roles to make anew though they are good still
   * @returns roles that were published
   * @throws FieldloopError `trust_key_unavailable` where a key of snapshot or timestamp cannot sign
   */
  async run(actor: string, renew: readonly TrustRole[] = []): Promise<ReadonlySet<TrustRole>> {
    const wanted = new Set(renew);
    const published = new Set<TrustRole>();
    for (let round = 0; round < SERVER_LIMITS.trustSyncRoundsMax; round++) {
      const head = await this.#options.repository.head();
      const step = await this.#next(head, wanted);
      if (!step) return published;
      if (!(await this.#publish(head, step, actor))) continue;
      for (const role of TRUST_ROLES) {
        if (!step.publication[role]) continue;
        published.add(role);
        wanted.delete(role);
      }
    }
    throw new FieldloopError("internal", "Synchronize trust: it does not come to rest");
  }

  /** Keys that wait for a root; undefined where none do. */
  async staged(): Promise<RootRoles | undefined> {
    const text = await this.#store.value("staged");
    return text === undefined ? undefined : stagedRolesSchema.parse(JSON.parse(text));
  }

  /** The signing request that is open. */
  async request(): Promise<SigningRequest | undefined> {
    const text = await this.#store.value("request");
    return text === undefined ? undefined : signingRequestSchema.parse(JSON.parse(text));
  }

  /** Targets metadata as they should be, whether or not they differ from the published ones. */
  async nextTargets(head: Head): Promise<Targets> {
    const { contents, clock } = this.#options;
    const version = head.targets.metadata.signed.version + 1;
    return buildTargets(await contents.wanted(), version, expiryOf("targets", clock.now()));
  }

  /** What the published metadata lack; an empty draft where they lack nothing. */
  async wantedDraft(head: Head, renew: ReadonlySet<TrustRole>): Promise<Draft> {
    const { contents, clock } = this.#options;
    const now = clock.now();
    const root = await this.#root(head, renew, now);
    const targets = this.#targets(head, await contents.wanted(), renew, now);
    return { ...(root ? { root } : {}), ...(targets ? { targets } : {}) };
  }

  async #next(head: Head | undefined, renew: ReadonlySet<TrustRole>): Promise<Step | undefined> {
    const { contents, clock, ring } = this.#options;
    const now = clock.now();
    const wanted = await contents.wanted();
    const plan = async (
      draft: Draft,
      options: Partial<PlanOptions> = {},
    ): Promise<Publication | undefined> => {
      const made = await planPublication(head, draft, {
        signers: await ring.signers(),
        now,
        renew,
        ...options,
      });
      if (!made.complete) this.#tellFailures(made.failures);
      return made.complete && Object.keys(made.publication).length > 0 ? made.publication : undefined;
    };
    if (!head) return this.#first(wanted, plan);
    const request = await this.#currentRequest(head, now);
    const asked = request ? draftOf(request) : {};
    if (request) {
      const publication = await plan(asked, { collected: await this.#store.signatures(request.request) });
      if (publication) return { publication, closesRequest: true, unstages: asked.root !== undefined };
    }
    const root = asked.root ? undefined : await this.#root(head, renew, now);
    const rooted = root && (await plan({ root }));
    if (rooted) return { publication: rooted, closesRequest: false, unstages: true };
    const targets = asked.targets ? undefined : this.#targets(head, wanted, renew, now);
    const publication = (targets && (await plan({ targets }))) ?? (await plan({}));
    return publication && { publication, closesRequest: false, unstages: false };
  }

  /** Everything that the first start makes: a key of each role, here. */
  async #first(
    wanted: readonly WantedTarget[],
    plan: (draft: Draft) => Promise<Publication | undefined>,
  ): Promise<Step | undefined> {
    const { ring, clock } = this.#options;
    const make = async () => ({ keys: [await ring.create()], threshold: 1 });
    const roles = {
      root: await make(),
      targets: await make(),
      snapshot: await make(),
      timestamp: await make(),
    };
    const root = buildRoot(roles, 1, expiryOf("root", clock.now()));
    const publication = await plan({
      root,
      targets: buildTargets(wanted, 1, expiryOf("targets", clock.now())),
    });
    return publication && { publication, closesRequest: true, unstages: true };
  }

  async #root(head: Head, renew: ReadonlySet<TrustRole>, now: number): Promise<Root | undefined> {
    const before = head.root.metadata.signed;
    const inForce = rolesOf(before);
    const staged = await this.staged();
    const changed = staged !== undefined && !sameRoles(staged, inForce);
    if (!changed && !renew.has("root") && !isRenewalDue("root", expiresTime(before), now)) return undefined;
    return buildRoot(staged ?? inForce, before.version + 1, expiryOf("root", now));
  }

  #targets(
    head: Head,
    wanted: readonly WantedTarget[],
    renew: ReadonlySet<TrustRole>,
    now: number,
  ): Targets | undefined {
    const before = head.targets.metadata.signed;
    const targets = buildTargets(wanted, before.version + 1, expiryOf("targets", now));
    const due = renew.has("targets") || isRenewalDue("targets", expiresTime(before), now);
    return due || !sameTargets(before, targets) ? targets : undefined;
  }

  /** One that was overtaken, or that nobody answered for long, is closed. */
  async #currentRequest(head: Head, now: number): Promise<SigningRequest | undefined> {
    const request = await this.request();
    if (!request) return undefined;
    const overtaken = request.documents.some(
      ({ role, version }) => version !== head[role].metadata.signed.version + 1,
    );
    if (!overtaken && now - request.created < SERVER_LIMITS.trustRequestKeptMs) return request;
    this.#options.logger.warn({ request: request.request, overtaken }, "signing request closed");
    await this.#options.database.transaction((tx) => closeRequest(tx));
    return undefined;
  }

  /** @returns false where another server was first: look again */
  async #publish(head: Head | undefined, step: Step, actor: string): Promise<boolean> {
    const { repository, clock, newId, logger } = this.#options;
    const { publication, closesRequest, unstages } = step;
    const now = clock.now();
    const versions = Object.fromEntries(
      TRUST_ROLES.flatMap((role) => {
        const made = publication[role];
        return made ? [[role, made.metadata.signed.version]] : [];
      }),
    );
    try {
      await repository.publish(head, publication, now, async (tx) => {
        if (closesRequest) await closeRequest(tx);
        if (unstages) await new TrustStore(tx).setValue("staged", undefined);
        if (!publication.root && !publication.targets) return;
        await new AuditStore(tx).add({
          entry: newId("aud"),
          time: now,
          actor,
          action: "trust.published",
          subject: "trust",
          detail: versions,
        });
      });
    } catch (error) {
      if (error instanceof FieldloopError && error.code === "conflict") return false;
      throw error;
    }
    logger.info({ ...versions }, "trust metadata published");
    return true;
  }

  #tellFailures(failures: readonly unknown[]): void {
    for (const error of failures) this.#options.logger.warn({ err: error }, "a key could not sign");
  }
}

/** An answered or withdrawn request leaves no signature behind. */
export async function closeRequest(tx: Database): Promise<void> {
  const store = new TrustStore(tx);
  await store.setValue("request", undefined);
  await store.forgetSignatures();
}
