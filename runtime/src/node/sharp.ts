import type sharp from "sharp";

type Sharp = typeof sharp;

/**
 * Images from outside are hostile until decoded: a small file may claim gigabytes. Only three loaders are left in the
 * process, the type is read from the first bytes before any of them sees the file, one page, a pixel limit.
 */
const BLOCKED = [
  "VipsForeignLoadNsgif",
  "VipsForeignLoadTiff",
  "VipsForeignLoadVips",
  "VipsForeignLoadSvg",
  "VipsForeignLoadPdf",
  "VipsForeignLoadHeif",
  "VipsForeignLoadJxl",
  "VipsForeignLoadMagick",
  "VipsForeignLoadMagick7",
  "VipsForeignLoadOpenslide",
  "VipsForeignLoadPpm",
  "VipsForeignLoadRad",
  "VipsForeignLoadFits",
  "VipsForeignLoadCsv",
  "VipsForeignLoadMatrix",
  "VipsForeignLoadAnalyze",
  "VipsForeignLoadRaw",
];

let loading: Promise<Sharp> | undefined;

/** The image library, loaded with the first image of a thread: of several threads of an agent not every one meets images. */
export function loadSharp(): Promise<Sharp> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Sharp> {
  const { default: library } = await import("sharp");
  library.block({ operation: BLOCKED });
  // Frames differ, so a cache of decoded operations only holds memory. Threads within one small picture cost more than they
  // give, and would come on top of those that sessions were granted.
  library.cache(false);
  library.concurrency(1);
  return library;
}
