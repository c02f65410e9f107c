import { FieldloopError } from "@fieldloop/protocol";
import { FramedReader, type FrameFormat } from "./framed-reader.js";

/** `--ffmpeg`, `Content-type: image/jpeg`, `Content-length: N`, an empty line. */
const FORMAT: FrameFormat<undefined> = {
  headBytesMax: 256,
  parse(text) {
    const end = text.indexOf("\r\n\r\n", text.startsWith("\r\n") ? 2 : 0);
    if (end < 0) return undefined;
    const headBytes = end + 4;
    const match = /^(?:\r\n)?--ffmpeg\r\n(?:[^\r\n]*\r\n)*content-length: *(\d{1,9})\r\n/i.exec(
      text.slice(0, end + 2),
    );
    if (!match) throw new FieldloopError("source_failed", "Read camera: ffmpeg did not write multipart JPEG");
    return { head: undefined, headBytes, bodyBytes: Number(match[1]) };
  },
};

/** Cuts ffmpeg's `mpjpeg` stream into JPEG files as the camera made them, without looking into them. */
export class MultipartJpegReader {
  readonly #reader = new FramedReader(FORMAT);

  /** @throws FieldloopError `source_failed` */
  push(chunk: Buffer): Uint8Array[] {
    return this.#reader.push(chunk).map(({ data }) => data);
  }
}
