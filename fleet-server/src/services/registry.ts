import {
  FieldloopError,
  formatModelVersion,
  LIMITS,
  manifestFiles,
  type Manifest,
  type Model,
  type ModelVersion,
  decidingHeadOf,
} from "@fieldloop/protocol";
import { checkModel, parseManifest } from "@fieldloop/runtime";
import type { BlobStore } from "../blob/blob.js";
import type { Clock } from "../context.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { EvaluationStore } from "../store/evaluations.js";
import { RegistryStore, type StoredVersion } from "../store/registry.js";
import type { NewId } from "./ids.js";

export interface RegistryOptions {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly newId: NewId;
  readonly labels: { put(model: string, version: number, labels: readonly string[]): Promise<void> };
  readonly running: { runningOn(model: string, version: number): Promise<number> };
  readonly live: { publish(event: { type: "model"; id: string }): void };
  readonly trust: {
    settle(): Promise<void>;
    wake(): void;
    isSigned(model: string, version: number, packageSha256: string): Promise<boolean>;
  };
}

/**
 * Published versions. A version is a manifest blob and the blobs it names; publishing checks all of them, gives the version its
 * number's place and makes it a target of the trust repository. Nothing of it changes afterwards.
 */
export class RegistryService {
  readonly #options: RegistryOptions;
  readonly #store: RegistryStore;
  readonly #evaluations: EvaluationStore;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#store = new RegistryStore(options.database);
    this.#evaluations = new EvaluationStore(options.database);
  }

  /**
   * Publishes the package whose `manifest.json` is the blob `manifestSha256`; the same package again is the same version. Its target
   * follows at once where the targets keys are here; else the version waits for their signature.
   * @param deviceClasses what it is made for; null: any device class
   * @throws FieldloopError `not_found` without the blob, `manifest_*`, `package_file_missing`, `package_size_mismatch`, `onnx_*`,
   * `invalid_argument` for another model's manifest, `already_exists` or `conflict` for a number that is taken or not the next
   */
  async publish(
    model: string,
    manifestSha256: string,
    actor: string,
    deviceClasses: readonly string[] | null = null,
  ): Promise<ModelVersion> {
    const known = await this.#store.getByPackage(manifestSha256);
    if (known?.model === model) return this.#view(known);
    const { manifest, manifestBytes } = await this.#readManifest(model, manifestSha256);
    await this.#checkNumber(manifest);
    const bytes = await this.#checkFiles(manifest);
    const version: StoredVersion = {
      model,
      version: manifest.version,
      packageSha256: manifestSha256,
      manifestBytes,
      manifest,
      bytes: bytes + manifestBytes,
      deviceClasses,
      created: Date.parse(manifest.created),
      published: this.#options.clock.now(),
      publishedBy: actor,
    };
    await this.#options.database.transaction(async (tx) => {
      await new RegistryStore(tx).add(version);
      await new AuditStore(tx).add({
        entry: this.#options.newId("aud"),
        time: version.published,
        actor,
        action: "version.published",
        subject: `version:${formatModelVersion(model, manifest.version)}`,
        detail: { packageSha256: manifestSha256 },
      });
    });
    await this.#options.labels.put(model, manifest.version, labelsOf(manifest));
    await this.#options.trust.settle();
    this.#options.live.publish({ type: "model", id: model });
    return this.#view(version);
  }

  /** Labels are written after the version; a server that died between the two writes them at its next start. */
  async start(): Promise<void> {
    for (const { model, version, manifest } of await this.#store.list()) {
      await this.#options.labels.put(model, version, labelsOf(manifest));
    }
  }

  async listModels(): Promise<Model[]> {
    const byModel = new Map<string, StoredVersion[]>();
    for (const version of await this.#store.list()) {
      const versions = byModel.get(version.model);
      if (versions) versions.push(version);
      else byModel.set(version.model, [version]);
    }
    const models: Model[] = [];
    for (const [model, versions] of byModel) models.push(await this.#modelView(model, versions));
    return models;
  }

  /** @throws FieldloopError `not_found` */
  async getModel(model: string): Promise<Model> {
    const versions = await this.#store.list(model);
    if (versions.length === 0)
      throw new FieldloopError("not_found", `Read model: there is no model "${model}"`);
    return this.#modelView(model, versions);
  }

  /** @throws FieldloopError `not_found` */
  async getVersion(model: string, version: number): Promise<ModelVersion> {
    return this.#view(await this.require(model, version));
  }

  /** @throws FieldloopError `not_found` */
  async require(model: string, version: number): Promise<StoredVersion> {
    const stored = await this.find(model, version);
    if (stored) return stored;
    throw new FieldloopError(
      "not_found",
      `Read version: there is no "${formatModelVersion(model, version)}"`,
    );
  }

  /** A version that devices can install. @throws FieldloopError `not_found`, `version_awaiting_signature` */
  async requireSigned(model: string, version: number): Promise<StoredVersion> {
    const stored = await this.require(model, version);
    if (await this.#options.trust.isSigned(model, version, stored.packageSha256)) return stored;
    throw new FieldloopError(
      "version_awaiting_signature",
      `Use "${formatModelVersion(model, version)}": it waits for the signature of the targets keys ("fieldloop keys request")`,
    );
  }

  /** Writes down why a version without a passing evaluation is rolled out; its target says so too. */
  async letThrough(model: string, version: number, reason: string): Promise<void> {
    await this.#store.setForceReason(model, version, reason);
    this.#options.trust.wake();
  }

  find(model: string, version: number): Promise<StoredVersion | undefined> {
    return this.#store.get(model, version);
  }

  /** The newest version that this actor published. */
  findPublishedBy(model: string, actor: string): Promise<StoredVersion | undefined> {
    return this.#store.findPublishedBy(model, actor);
  }

  async nextNumber(model: string): Promise<number> {
    return (await this.#store.latestNumber(model)) + 1;
  }

  async evidence(model: string, version: number): Promise<ModelVersion["evidence"]> {
    return (await this.#evaluations.latestVerdict(model, version)) ?? "none";
  }

  async #readManifest(model: string, sha256: string): Promise<{ manifest: Manifest; manifestBytes: number }> {
    const info = await this.#options.blobs.stat(sha256);
    if (!info) throw new FieldloopError("not_found", `Publish: no artifact "${sha256}" was uploaded`);
    if (info.bytes > LIMITS.manifestBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Publish: a manifest of ${info.bytes} bytes, at most ${LIMITS.manifestBytesMax}`,
      );
    }
    const manifest = parseManifest(await this.#options.blobs.get(sha256));
    if (manifest.model !== model) {
      throw new FieldloopError(
        "invalid_argument",
        `Publish to "${model}": the manifest is of "${manifest.model}"`,
      );
    }
    return { manifest, manifestBytes: info.bytes };
  }

  /** Numbers have no gaps, so that `parts@6` is known to be what came before `parts@7`; a model may start at any. */
  async #checkNumber({ model, version }: Manifest): Promise<void> {
    const latest = await this.#store.latestNumber(model);
    if (latest === 0 || version === latest + 1) return;
    const name = formatModelVersion(model, version);
    if (version <= latest) {
      throw new FieldloopError(
        "already_exists",
        `Publish "${name}": the number is taken; the next is ${latest + 1}`,
      );
    }
    throw new FieldloopError("conflict", `Publish "${name}": the next number is ${latest + 1}`);
  }

  /** @returns the bytes of all files */
  async #checkFiles(manifest: Manifest): Promise<number> {
    let sum = 0;
    for (const { file, sha256, bytes } of manifestFiles(manifest)) {
      const info = await this.#options.blobs.stat(sha256);
      if (!info)
        throw new FieldloopError("package_file_missing", `Publish: "${file}" (${sha256}) was not uploaded`);
      if (info.bytes !== bytes) {
        throw new FieldloopError(
          "package_size_mismatch",
          `Publish: "${file}" has ${info.bytes} bytes, the manifest says ${bytes}`,
        );
      }
      sum += bytes;
    }
    for (const variant of manifest.variants) checkModel(await this.#options.blobs.get(variant.sha256));
    return sum;
  }

  async #modelView(model: string, versions: readonly StoredVersion[]): Promise<Model> {
    const views: ModelVersion[] = [];
    for (const version of versions) views.push(await this.#view(version));
    return { model, task: versions[0]!.manifest.task, versions: views };
  }

  async #view(stored: StoredVersion): Promise<ModelVersion> {
    const { model, version, packageSha256, created, published, bytes, manifest, deviceClasses } = stored;
    const signed = await this.#options.trust.isSigned(model, version, packageSha256);
    return {
      model,
      version,
      packageSha256,
      created,
      published,
      bytes,
      manifest,
      runningOn: await this.#options.running.runningOn(model, version),
      evidence: await this.evidence(model, version),
      deviceClasses: deviceClasses === null ? null : [...deviceClasses],
      state: signed ? "published" : "awaiting_signature",
    };
  }
}

/** Labels of the first head that decides something: what a prediction's class number means. */
export function labelsOf(manifest: Manifest): readonly string[] {
  return decidingHeadOf(manifest)?.head.labels ?? [];
}
