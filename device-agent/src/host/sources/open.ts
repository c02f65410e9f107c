import type { SourceSpec } from "../../source-spec.js";
import { AudioSource } from "./audio.js";
import { FolderSource } from "./folder.js";
import { HttpSource } from "./http.js";
import { FfmpegImageSource } from "./images.js";
import { MqttSource } from "./mqtt.js";
import { RowFileSource } from "./row-file.js";
import { SimulatorSource } from "./simulator.js";
import type { Source, SourceContext } from "./source.js";
import { TcpSource } from "./tcp.js";

/** The source that a spec names. `firstIndex`: where a simulator's scene begins. */
export function createSource(spec: SourceSpec, context: SourceContext, firstIndex: number): Source {
  switch (spec.kind) {
    case "folder":
      return new FolderSource(spec, context);
    case "video":
    case "camera":
    case "rtsp":
      return new FfmpegImageSource(spec, context);
    case "audio":
      return new AudioSource(spec, context);
    case "csv":
    case "ndjson":
      return new RowFileSource(spec, context);
    case "tcp":
    case "tcp-listen":
      return new TcpSource(spec, context);
    case "mqtt":
      return new MqttSource(spec, context);
    case "http":
      return new HttpSource(spec, context);
    case "simulator":
      return new SimulatorSource(spec, context, firstIndex);
  }
}
