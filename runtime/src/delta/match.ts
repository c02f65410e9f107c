import type { StoredTensor } from "./tensors.js";

/** A tensor of the target and the one of the base that it came from. */
export interface TensorPair {
  readonly target: StoredTensor;
  /** Undefined where the base has nothing like it. */
  readonly base: StoredTensor | undefined;
}

/**
 * Finds for each tensor of the target the one of the base that it is a changed or the same form of: by its name with type and shape,
 * by its content (it was renamed), by its order among those of the same type and shape (all were renamed), and at last by
 * its name alone with rows of the same length (a class more).
 */
export function matchTensors(
  base: { readonly bytes: Uint8Array; readonly tensors: readonly StoredTensor[] },
  target: { readonly bytes: Uint8Array; readonly tensors: readonly StoredTensor[] },
): TensorPair[] {
  const pairs = new Map<StoredTensor, StoredTensor>();
  const free = new Set(base.tensors);
  const match = (keyOf: (tensor: StoredTensor, bytes: Uint8Array) => string | undefined) => {
    const byKey = groupBy([...free], (tensor) => keyOf(tensor, base.bytes));
    for (const tensor of target.tensors) {
      if (pairs.has(tensor)) continue;
      const key = keyOf(tensor, target.bytes);
      const found = key === undefined ? undefined : byKey.get(key)?.shift();
      if (!found) continue;
      pairs.set(tensor, found);
      free.delete(found);
    }
  };
  match((tensor) => (tensor.name === "" ? undefined : `${shapeOf(tensor)} ${tensor.name}`));
  match((tensor, bytes) => `${shapeOf(tensor)} ${contentHash(bytes, tensor.start, tensor.end)}`);
  match(shapeOf);
  match((tensor) =>
    tensor.name === ""
      ? undefined
      : `${tensor.element} [${tensor.dims.slice(1).join(",")}] ${tensor.name} ${tensor.dims.length}`,
  );
  return target.tensors.map((tensor) => ({ target: tensor, base: pairs.get(tensor) }));
}

function shapeOf({ element, dims, start, end }: StoredTensor): string {
  return `${element} [${dims.join(",")}] ${end - start}`;
}

function groupBy<Item>(
  items: readonly Item[],
  keyOf: (item: Item) => string | undefined,
): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    if (key === undefined) continue;
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}

/** FNV-1a over all bytes: what has the same hash is only compared as if it were the same. */
function contentHash(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
  return hash >>> 0;
}
