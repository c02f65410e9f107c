import { basename, dirname } from "node:path";
import type { TrustDisk } from "../control/trust/disk.js";

/** What is on a medium for sure, and what an operating system shows beside it as long as the power is there. */
interface FileNode {
  readonly kind: "file";
  data: Buffer;
  durable: Buffer;
}
interface FolderNode {
  readonly kind: "folder";
  readonly entries: Map<string, Node>;
  durable: Map<string, Node>;
}
type Node = FileNode | FolderNode;

/**
 * How the power goes: `lost`, nothing that was not synced is there; `kept`, all of it is; `torn`, the names are there and what was in the
 * files is not, as after a rename that overtook its data.
 */
export const POWER_CUTS = ["lost", "kept", "torn"] as const;
export type PowerCut = (typeof POWER_CUTS)[number];

export class PowerWent extends Error {}

/**
 * A disk in memory that loses power in its `cutAt`-th step: every byte of a write is a step of its own, as is every name that a removal
 * takes away. Without `cutAt` it counts the steps.
 */
export class PowerCutDisk implements TrustDisk {
  readonly #root: FolderNode;
  readonly #cutAt: number;
  steps = 0;

  constructor(cutAt = Number.POSITIVE_INFINITY, root: FolderNode = folder()) {
    this.#cutAt = cutAt;
    this.#root = root;
  }

  /** What a start after the power cut finds. */
  after(cut: PowerCut): PowerCutDisk {
    return new PowerCutDisk(Number.POSITIVE_INFINITY, survivor(this.#root, cut));
  }

  /** The files, as somebody who looks now sees them. */
  paths(): string[] {
    return pathsOf(this.#root, "");
  }

  /** What a bad medium does. */
  harm(path: string, bytes: Buffer): void {
    const node = this.#find(path);
    if (node?.kind !== "file") throw new Error(`No file "${path}"`);
    node.data = bytes;
    node.durable = bytes;
  }

  read(path: string): Promise<Buffer | undefined> {
    const node = this.#find(path);
    return Promise.resolve(node?.kind === "file" ? node.data : undefined);
  }

  list(path: string): Promise<string[]> {
    const node = this.#find(path);
    return Promise.resolve(node?.kind === "folder" ? [...node.entries.keys()] : []);
  }

  async write(path: string, bytes: Uint8Array): Promise<void> {
    const parent = this.#folderOf(path);
    this.#step();
    let node = parent.entries.get(basename(path));
    if (node?.kind !== "file") {
      node = { kind: "file", data: Buffer.alloc(0), durable: Buffer.alloc(0) };
      parent.entries.set(basename(path), node);
    }
    node.data = Buffer.alloc(0);
    for (let length = 1; length <= bytes.length; length++) {
      this.#step();
      node.data = Buffer.from(bytes.buffer, bytes.byteOffset, length);
    }
    return Promise.resolve();
  }

  async sync(path: string): Promise<void> {
    const node = this.#find(path);
    if (node?.kind !== "file") throw new Error(`Sync "${path}": no such file`);
    this.#step();
    node.durable = node.data;
    return Promise.resolve();
  }

  async syncDirectory(path: string): Promise<void> {
    const node = this.#find(path);
    if (node?.kind !== "folder") throw new Error(`Sync "${path}": no such folder`);
    this.#step();
    node.durable = new Map(node.entries);
    return Promise.resolve();
  }

  async makeDirectory(path: string): Promise<void> {
    let at = this.#root;
    for (const part of partsOf(path)) {
      let next = at.entries.get(part);
      if (!next) {
        this.#step();
        next = folder();
        at.entries.set(part, next);
        this.#step();
        at.durable.set(part, next);
      }
      if (next.kind !== "folder") throw new Error(`Make "${path}": a file is in the way`);
      at = next;
    }
    return Promise.resolve();
  }

  async rename(from: string, to: string): Promise<void> {
    const source = this.#folderOf(from);
    const target = this.#folderOf(to);
    const node = source.entries.get(basename(from));
    if (!node) throw new Error(`Rename "${from}": no such file`);
    if (target.entries.get(basename(to))?.kind === "folder")
      throw new Error(`Rename to "${to}": it is there`);
    this.#step();
    source.entries.delete(basename(from));
    target.entries.set(basename(to), node);
    return Promise.resolve();
  }

  async remove(path: string): Promise<void> {
    const node = this.#find(path);
    if (!node) return;
    if (node.kind === "folder")
      for (const name of [...node.entries.keys()]) await this.remove(`${path}/${name}`);
    this.#step();
    this.#folderOf(path).entries.delete(basename(path));
  }

  #step(): void {
    if (this.steps === this.#cutAt) throw new PowerWent("The power went");
    this.steps++;
  }

  #find(path: string): Node | undefined {
    let at: Node = this.#root;
    for (const part of partsOf(path)) {
      const next: Node | undefined = at.kind === "folder" ? at.entries.get(part) : undefined;
      if (!next) return undefined;
      at = next;
    }
    return at;
  }

  #folderOf(path: string): FolderNode {
    const node = this.#find(dirname(path));
    if (node?.kind !== "folder") throw new Error(`No folder for "${path}"`);
    return node;
  }
}

function folder(): FolderNode {
  return { kind: "folder", entries: new Map(), durable: new Map() };
}

function survivor(node: FolderNode, cut: PowerCut): FolderNode {
  const entries = new Map<string, Node>();
  for (const [name, child] of cut === "lost" ? node.durable : node.entries) {
    if (child.kind === "folder") {
      entries.set(name, survivor(child, cut));
      continue;
    }
    const data = cut === "kept" ? child.data : child.durable;
    entries.set(name, { kind: "file", data, durable: data });
  }
  return { kind: "folder", entries, durable: new Map(entries) };
}

function pathsOf(node: FolderNode, prefix: string): string[] {
  return [...node.entries].flatMap(([name, child]) =>
    child.kind === "folder" ? pathsOf(child, `${prefix}/${name}`) : [`${prefix}/${name}`],
  );
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}
