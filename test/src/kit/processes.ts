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
