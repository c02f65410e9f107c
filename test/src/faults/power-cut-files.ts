import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { type AppendFile, type DeviceFiles, nodeFiles } from "@fieldloop/device-agent";
import type { Random } from "@fieldloop/runtime/simulate";

/**
 * What a power cut may leave of what was not synced:
 * `lost` nothing of it; `names` new names with old or empty contents (renamed before the content was written); `contents` contents without
 * their new names; `kept` all of it (as after a kill); `torn` all of it, the last write in part; `zeros` all of it, the last write as zeros
 * (the length was written, the blocks were not); `mixed` each folder and file at some moment of its own since it was synced.
 */
export const REMAINS = ["lost", "names", "contents", "kept", "torn", "zeros", "mixed"] as const;
export type Remains = (typeof REMAINS)[number];

/** The machine is off: nothing that is asked of the disk from now on happens. */
export class PowerCut extends Error {}

class FileNode {
  /** What a reader sees; what is sure to be there after a power cut. */
  content: Buffer;
  synced: Buffer;
  /** Since the last sync, the newest last. */
  versions: Buffer[] = [];
  lastWriteAt = 0;

  constructor(content: Buffer, synced: Buffer) {
    this.content = content;
    this.synced = synced;
  }

  set(content: Buffer, lastWriteAt: number): void {
    this.versions.push(this.content);
    this.content = content;
    this.lastWriteAt = lastWriteAt;
  }
  sync(): void {
    this.synced = this.content;
    this.versions = [];
  }
}

type Names = ReadonlyMap<string, Node>;
class FolderNode {
  names: Names;
  synced: Names;
  versions: Names[] = [];

  constructor(names: Names, synced: Names) {
    this.names = names;
    this.synced = synced;
  }

  /** All at once: a rename within a folder is never seen half done. */
  set(...changes: readonly (readonly [name: string, node: Node | undefined])[]): void {
    this.versions.push(this.names);
    const names = new Map(this.names);
    for (const [name, node] of changes) {
      if (node) names.set(name, node);
      else names.delete(name);
    }
    this.names = names;
  }
  sync(): void {
    this.synced = this.names;
    this.versions = [];
  }
}
type Node = FileNode | FolderNode;

export interface PowerCutOptions {
  /** The state folder, really there: whoever reads it sees what was written. */
  readonly root: string;
  /** The operation before which the power goes; of a write, in its midst. None by default. */
  readonly cutAt?: number;
  /** Operations that the disk refuses, with this code. */
  readonly refuse?: (operation: number, kind: OperationKind) => "ENOSPC" | "EIO" | undefined;
  readonly freeBytes?: () => number;
}

export type OperationKind = keyof DeviceFiles | "write" | "sync";

/**
 * A disk of which is known what a power cut leaves. Every operation is also done to a real folder; beside it the disk notes what POSIX
 * promises: a content is sure after a sync of its file, a name after a sync of its folder, and nothing else is.
 */
export class PowerCutFiles implements DeviceFiles {
  readonly root: string;
  /** In their order, with what each was about. */
  readonly operations: string[] = [];
  /** Resolves when the power is gone. */
  readonly gone: Promise<void>;
  readonly #options: PowerCutOptions;
  readonly #tree: FolderNode;
  #isGone = false;
  #go: () => void = () => undefined;
  /** Of the write that was cut, how much the file would hold. */
  #cutWrite: FileNode | undefined;

  constructor(options: PowerCutOptions) {
    this.root = options.root;
    this.#options = options;
    this.#tree = readTree(options.root);
    this.gone = new Promise((resolve) => {
      this.#go = resolve;
    });
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  async open(path: string, how: "w" | "a"): Promise<AppendFile> {
    this.#begin("open", path);
    const real = await nodeFiles.open(path, how);
    const node = this.#file(path) ?? this.#newFile(path);
    if (how === "w" && node.content.length > 0) node.set(Buffer.alloc(0), 0);
    return {
      write: async (bytes) => {
        this.#begin("write", path, () => this.#append(node, bytes));
        await real.write(bytes);
        this.#append(node, bytes);
      },
      sync: () =>
        this.#noted(() => {
          this.#begin("sync", path);
          node.sync();
        }),
      close: () => real.close(),
    };
  }

  async rename(from: string, to: string): Promise<void> {
    this.#begin("rename", to);
    await nodeFiles.rename(from, to);
    const node = this.#node(from)!;
    const before = this.#folder(dirname(from));
    const after = this.#folder(dirname(to));
    if (before === after) return before.set([nameOf(from), undefined], [nameOf(to), node]);
    // Two folders are two entries on the disk: any of them may be there, or none.
    before.set([nameOf(from), undefined]);
    after.set([nameOf(to), node]);
  }

  async copy(from: string, to: string): Promise<void> {
    const bytes = readFileSync(from);
    this.#begin("copy", to, () => this.#append(this.#file(to) ?? this.#newFile(to), bytes));
    await nodeFiles.copy(from, to);
    (this.#file(to) ?? this.#newFile(to)).set(bytes, 0);
  }

  async unlink(path: string): Promise<void> {
    this.#begin("unlink", path);
    await nodeFiles.unlink(path);
    this.#folder(dirname(path)).set([nameOf(path), undefined]);
  }

  async makeDirectory(path: string): Promise<void> {
    this.#begin("makeDirectory", path);
    await nodeFiles.makeDirectory(path);
    this.#folder(dirname(path)).set([nameOf(path), new FolderNode(new Map(), new Map())]);
  }

  async removeDirectory(path: string): Promise<void> {
    this.#begin("removeDirectory", path);
    await nodeFiles.removeDirectory(path);
    this.#folder(dirname(path)).set([nameOf(path), undefined]);
  }

  syncFile(path: string): Promise<void> {
    return this.#noted(() => {
      this.#begin("syncFile", path);
      statSync(path);
      this.#file(path)!.sync();
    });
  }

  syncDirectory(path: string): Promise<void> {
    return this.#noted(() => {
      this.#begin("syncDirectory", path);
      statSync(path);
      this.#folder(path).sync();
    });
  }

  freeBytes(path: string): Promise<number> {
    const { freeBytes } = this.#options;
    return freeBytes ? Promise.resolve(freeBytes()) : nodeFiles.freeBytes(path);
  }

  /** A sync is only noted: the real disk need not wait for one, thousands of times. */
  async #noted(work: () => void): Promise<void> {
    await Promise.resolve();
    work();
  }

  /** What is on the disk when the power is back, as a folder of its own. */
  leave(target: string, remains: Remains, random: Random): void {
    writeFolder(target, this.#tree, {
      names: (folder) => choose(remains, folder.names, folder.synced, folder.versions, random),
      content: (file) => this.#contentOf(file, remains, random),
    });
  }

  /** Every file that a reader sees, by its path within the root, as the noted operations say. */
  contents(): Map<string, string> {
    const found = new Map<string, string>();
    const visit = (folder: FolderNode, path: string): void => {
      for (const [name, node] of folder.names) {
        if (node instanceof FolderNode) visit(node, join(path, name));
        else found.set(join(path, name), node.content.toString("base64"));
      }
    };
    visit(this.#tree, "");
    return found;
  }

  #contentOf(file: FileNode, remains: Remains, random: Random): Buffer {
    const isCut = file === this.#cutWrite;
    if (isCut && remains === "torn") {
      const { lastWriteAt, content } = file;
      return content.subarray(0, lastWriteAt + Math.floor(random.uniform() * (content.length - lastWriteAt)));
    }
    if (isCut && remains === "zeros") return Buffer.from(file.content).fill(0, file.lastWriteAt);
    return choose(
      remains === "names" ? "lost" : remains === "contents" ? "kept" : remains,
      file.content,
      file.synced,
      file.versions,
      random,
    );
  }

  /** Counts an operation; at the chosen one the power goes. @throws PowerCut */
  #begin(kind: OperationKind, path: string, partly?: () => void): void {
    if (this.#isGone) throw new PowerCut("the power is gone");
    const operation = this.operations.length;
    this.operations.push(`${kind} ${relative(this.root, path)}`);
    if (operation === this.#options.cutAt) {
      this.#isGone = true;
      partly?.();
      this.#go();
      throw new PowerCut(`the power goes at ${kind}`);
    }
    const code = this.#options.refuse?.(operation, kind);
    if (code !== undefined) throw Object.assign(new Error(`${code}: ${kind}`), { code });
  }

  #append(node: FileNode, bytes: Uint8Array): void {
    const at = node.content.length;
    node.set(Buffer.concat([node.content, bytes]), at);
    if (this.#isGone) this.#cutWrite = node;
  }

  #newFile(path: string): FileNode {
    const node = new FileNode(Buffer.alloc(0), Buffer.alloc(0));
    this.#folder(dirname(path)).set([nameOf(path), node]);
    return node;
  }

  #node(path: string): Node | undefined {
    let node: Node | undefined = this.#tree;
    for (const name of relative(this.root, path).split(sep)) {
      if (name === "") continue;
      node = node instanceof FolderNode ? node.names.get(name) : undefined;
    }
    return node;
  }
  #file(path: string): FileNode | undefined {
    const node = this.#node(path);
    return node instanceof FileNode ? node : undefined;
  }
  #folder(path: string): FolderNode {
    const node = this.#node(path);
    if (!(node instanceof FolderNode))
      throw new Error(`No folder "${path}" is known: something was written past the disk`);
    return node;
  }
}

function choose<Value>(
  remains: Remains,
  now: Value,
  synced: Value,
  versions: readonly Value[],
  random: Random,
): Value {
  switch (remains) {
    case "lost":
    case "contents":
      return synced;
    case "names":
    case "kept":
    case "torn":
    case "zeros":
      return now;
    case "mixed": {
      const all = [synced, ...versions, now];
      return all[Math.floor(random.uniform() * all.length)]!;
    }
  }
}

interface Choice {
  readonly names: (folder: FolderNode) => Names;
  readonly content: (file: FileNode) => Buffer;
}

function writeFolder(path: string, folder: FolderNode, choice: Choice): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  for (const [name, node] of choice.names(folder)) {
    const inner = join(path, name);
    if (node instanceof FolderNode) writeFolder(inner, node, choice);
    else writeFileSync(inner, choice.content(node), { mode: 0o600 });
  }
}

/** What was there before is on the disk. */
function readTree(path: string): FolderNode {
  const names = new Map<string, Node>();
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const inner = join(path, entry.name);
    if (entry.isDirectory()) names.set(entry.name, readTree(inner));
    else {
      const content = readFileSync(inner);
      names.set(entry.name, new FileNode(content, content));
    }
  }
  return new FolderNode(names, names);
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf(sep) + 1);
}
