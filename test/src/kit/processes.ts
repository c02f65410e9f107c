import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Whether this process still runs; one that ended and was not waited for yet does not. */
export function isAlive(pid: number): boolean {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text[text.lastIndexOf(")") + 2] !== "Z";
  } catch {
    return false;
  }
}

/** Processes working in `folder` that have this file open (proc(5), `/proc/{pid}/fd`). Linux only: elsewhere none. */
export function holdersOf(path: string, folder: string): number[] {
  return pids().filter((pid) => {
    if (linkOf(`/proc/${pid}/cwd`) !== folder) return false;
    try {
      const files = `/proc/${pid}/fd`;
      return readdirSync(files).some((file) => linkOf(`${files}/${file}`) === path);
    } catch {
      // It ended meanwhile, or is another user's.
      return false;
    }
  });
}

/** Resident bytes, and processor time used so far in milliseconds (user and system). */
export function usageOf(pid: number): { residentBytes: number; cpuMs: number } {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  // Fields 14, 15 and 24 of proc(5), counted from the state; ticks of 10 ms, pages of 4 KiB.
  return { cpuMs: (Number(fields[11]) + Number(fields[12])) * 10, residentBytes: Number(fields[21]) * 4096 };
}

/** Its share of the memory in which it is resident: what several processes map counts for each in part (proc(5), `smaps_rollup`). */
export function proportionalBytesOf(pid: number): number {
  const kilobytes = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "latin1"))?.[1];
  return Number(kilobytes) * 1024;
}

/** Program and arguments. */
export function commandOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
}

function pids(): number[] {
  try {
    return readdirSync("/proc").map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
