import { setFlagsFromString } from "node:v8";

/**
 * What keeps the agent's two processes small. Each of these was measured alone at 30 frames a second; docs/adr/0014 has the figures.
 * None of them costs a frame: the processor time of both processes stays the same.
 */

/** The inference host's flags of V8, from its start. */
export const HOST_V8_FLAGS: readonly string[] = [
  // The young generation: a few more, shorter collections. By default it grows to 16 MB and stays there.
  "--max-semi-space-size=1",
  // The old generation grows in smaller steps.
  "--optimize-for-size",
  // Functions are compiled when they are called first.
  "--max-lazy",
  // One thread for collecting and compiling beside those that run models: each has a stack and a place in malloc.
  "--v8-pool-size=1",
  // Nearly all time goes to native code; a second form of machine code for what is warm takes more memory than it gives time.
  "--no-sparkplug",
];

/** What keeps the host small, whatever the agent was started with. */
export const HOST_ENVIRONMENT = {
  // glibc gives memory back at once: less than two thirds of the resident memory, and no growth per session.
  MALLOC_TRIM_THRESHOLD_: "65536",
  // By default every thread gets a heap of its own, up to eight for each core: what one freed the others cannot use. Small blocks come
  // from a cache of each thread all the same, and ONNX Runtime and V8 get theirs from the system.
  MALLOC_ARENA_MAX: "1",
  // Models run in threads of their own; these only read files and decode images, and each keeps a stack and an arena.
  UV_THREADPOOL_SIZE: "2",
};

/** The same for control, which runs already; the limit of its young generation is fixed by then, but not the steps towards it. */
const CONTROL_V8_FLAGS = [
  "--semi-space-growth-factor=1",
  "--optimize-for-size",
  "--max-lazy",
  // Nothing runs often enough here to be worth a second form of machine code.
  "--no-sparkplug",
];

/** Call it first in the process that becomes control: what is loaded before keeps the size that it has. */
export function keepControlSmall(): void {
  // The names of flags belong to a version of V8; another one may refuse them, in words on the terminal.
  if (!process.versions.v8.startsWith("11.")) return;
  for (const flag of CONTROL_V8_FLAGS) setFlagsFromString(flag);
}
