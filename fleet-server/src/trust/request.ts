import {
  FieldloopError,
  sha256Hex,
  type RequestedDocument,
  type SignaturesFile,
  type SigningRequest,
} from "@fieldloop/protocol";
import { Metadata, Root, type Targets } from "@tufjs/models";
import type { StoredSignature } from "../store/trust.js";
import {
  buildRoot,
  buildTargets,
  expiresTime,
  keyIdsOf,
  readSigned,
  rolesOf,
  type Head,
  type RoleKeys,
} from "./documents.js";
import { canonicalBytes, isSignature, trustKeyId } from "./keys.js";
import type { Draft } from "./publication.js";
import { addSignatures, signersOf } from "./signatures.js";
import { signChecked, type Signer } from "./signer.js";

/**
 * The ceremony of keys that are not on the server. Parties: the server, which asks; owners of keys at machines without a network; whoever carries
 * files between them. Threats met: a server that shows one thing and has another signed (what is shown and what is signed come from the same
 * `signed` part, on the offline machine), a carrier that alters files (a signature fits its document or is refused), a request that was
 * overtaken (refused by its id and version). What is not met: an owner who signs without reading.
 */

interface Need {
  readonly of: RequestedDocument["needs"][number]["of"];
  readonly keys: RoleKeys;
}

/** @param signers keys that are here; they sign when the request is answered, and are counted now */
export async function makeRequest(
  head: Head,
  draft: Draft,
  options: { readonly signers: ReadonlyMap<string, Signer>; readonly now: number; readonly actor: string },
): Promise<SigningRequest> {
  const current = { root: head.root.metadata.signed, targets: head.targets.metadata.signed };
  const documents: RequestedDocument[] = [];
  for (const { role, part, needs } of documentsOf(current.root, draft)) {
    const metadata = new Metadata<Root | Targets>(part);
    await addSignatures(
      metadata,
      needs.map(({ keys }) => keys),
      options.signers,
    );
    documents.push({
      role,
      version: part.version,
      sha256: hashOf(part),
      signed: part.toJSON(),
      needs: needs.map(({ of, keys }) => ({
        of,
        keyIds: keyIdsOf(keys),
        threshold: keys.threshold,
        signedBy: signersOf(metadata, keys),
      })),
    });
  }
  const id = sha256Hex(
    canonicalBytes({ created: options.now, documents: documents.map(({ sha256 }) => sha256) }),
  );
  return {
    format: "fieldloop-signing-request-1",
    request: `req_${id.slice(0, 16)}`,
    created: options.now,
    createdBy: options.actor,
    documents,
    current: { root: current.root.toJSON(), targets: current.targets.toJSON() },
  };
}

/** The documents of a request as they will be published. @throws FieldloopError `trust_metadata_malformed` */
export function draftOf(request: SigningRequest): Draft {
  const find = (role: "root" | "targets") => request.documents.find((document) => document.role === role);
  const root = find("root");
  const targets = find("targets");
  return {
    ...(root ? { root: checkedPart(root) as Root } : {}),
    ...(targets ? { targets: checkedPart(targets) as Targets } : {}),
  };
}

/**
 * Signs what the keys at hand may sign. Runs on the offline machine: it needs the request and the keys, nothing else.
 * @throws FieldloopError `trust_signature_insufficient` where none of the keys is asked for, `trust_metadata_malformed`, `trust_key_unavailable`
 */
export async function signRequest(
  request: SigningRequest,
  signers: readonly Signer[],
): Promise<SignaturesFile> {
  const draft = draftOf(request);
  const signatures: SignaturesFile["signatures"] = [];
  for (const { role, part, needs } of documentsOf(readSigned("root", request.current.root), draft)) {
    const wanted = new Set(needs.flatMap(({ keys }) => keyIdsOf(keys)));
    for (const signer of signers) {
      if (!wanted.has(signer.keyId)) continue;
      const signature = await signChecked(signer, canonicalBytes(part.toJSON()));
      signatures.push({ role, sha256: hashOf(part), keyId: signer.keyId, signature });
    }
  }
  const unused = signers.find(({ keyId }) => !signatures.some((signature) => signature.keyId === keyId));
  if (unused || signatures.length === 0) {
    throw new FieldloopError(
      "trust_signature_insufficient",
      `Sign "${request.request}": the key "${unused?.keyId ?? "none"}" is not asked for; wanted one of ${wantedText(request)}`,
    );
  }
  return { format: "fieldloop-signatures-1", request: request.request, signatures };
}

/**
 * Signatures that came back, each checked against its document.
 * @throws FieldloopError `trust_request_stale` for another request's, `trust_signature_insufficient` for one that does not count
 */
export function checkSignatures(request: SigningRequest, file: SignaturesFile): StoredSignature[] {
  if (file.request !== request.request) {
    throw new FieldloopError(
      "trust_request_stale",
      `Import signatures: they answer "${file.request}", open is "${request.request}"`,
    );
  }
  const documents = documentsOf(readSigned("root", request.current.root), draftOf(request));
  return file.signatures.map(({ role, sha256, keyId, signature }) => {
    const refuse = (reason: string): FieldloopError =>
      new FieldloopError(
        "trust_signature_insufficient",
        `Import signature of "${keyId}" for ${role}: ${reason}`,
      );
    const document = documents.find((candidate) => candidate.role === role);
    if (!document || hashOf(document.part) !== sha256) throw refuse("it is for another document");
    const key = document.needs
      .flatMap(({ keys }) => keys.keys)
      .find((candidate) => trustKeyId(candidate) === keyId);
    if (!key) throw refuse("the key is none of the role's");
    if (!isSignature(key, canonicalBytes(document.part.toJSON()), signature)) throw refuse("it does not fit");
    return { role, keyId, signature };
  });
}

interface DocumentPart {
  readonly role: "root" | "targets";
  readonly part: Root | Targets;
  readonly needs: readonly Need[];
}

/** Who must sign what, from the documents themselves. */
function documentsOf(rootInForce: Root, { root, targets }: Draft): DocumentPart[] {
  const parts: DocumentPart[] = [];
  if (root) {
    parts.push({
      role: "root",
      part: root,
      needs: [
        { of: "root in force", keys: rolesOf(rootInForce).root },
        { of: "new root", keys: rolesOf(root).root },
      ],
    });
  }
  if (targets) {
    const keys = rolesOf(root ?? rootInForce).targets;
    parts.push({ role: "targets", part: targets, needs: [{ of: "targets", keys }] });
  }
  return parts;
}

/** Nothing is signed that is not shown: a part that says more than our own builders do (delegations, other fields) is refused. */
function checkedPart(document: RequestedDocument): Root | Targets {
  const part = readSigned(document.role, document.signed);
  const refuse = (reason: string): FieldloopError =>
    new FieldloopError(
      "trust_metadata_malformed",
      `Read signing request: its ${document.role} document ${reason}`,
    );
  if (part.version !== document.version || hashOf(part) !== document.sha256) {
    throw refuse("is not the one that it announces");
  }
  if (hashOf(rebuilt(part)) !== document.sha256) throw refuse("says more than a fleet server would");
  return part;
}

function rebuilt(part: Root | Targets): Root | Targets {
  const expires = expiresTime(part);
  if (part instanceof Root) return buildRoot(rolesOf(part), part.version, expires);
  const wanted = Object.values(part.targets).map(({ path, length, hashes, custom }) => ({
    path,
    bytes: length,
    sha256: hashes["sha256"] ?? "",
    ...(custom["fieldloop"] ? { custom: custom["fieldloop"] as object } : {}),
  }));
  return buildTargets(wanted, part.version, expires);
}

function hashOf(part: Root | Targets): string {
  return sha256Hex(canonicalBytes(part.toJSON()));
}

function wantedText(request: SigningRequest): string {
  const keyIds = request.documents.flatMap(({ needs }) => needs.flatMap((need) => need.keyIds));
  return [...new Set(keyIds)].map((keyId) => `"${keyId}"`).join(", ");
}
