import type { SourceSpec } from "../../source-spec.js";
import { FolderSource } from "./folder.js";
import { HttpSource } from "./http.js";
import { SimulatorSource } from "./simulator.js";
import type { Source, SourceContext } from "./source.js";
import { VideoSource } from "./video.js";

/** The source that a spec names. `firstIndex`: where a simulator's scene begins. */
export function createSource(spec: SourceSpec, context: SourceContext, firstIndex: number): Source {
  switch (spec.kind) {
    case "folder":
      return new FolderSource(spec, context);
    case "video":
      return new VideoSource(spec, context);
    case "http":
      return new HttpSource(spec, context);
    case "simulator":
      return new SimulatorSource(spec, context, firstIndex);
  }
}
