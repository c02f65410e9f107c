/** First bytes of files that people take for ONNX, with what to do about them. */
const MARKS: readonly (readonly [mark: string, offset: number, what: string])[] = [
  // ONNX Runtime picks its own flatbuffer format by this mark, so a file that is both would be read as another model.
  ["ORTM", 4, "in ONNX Runtime's own format"],
  ["TFL3", 4, "a TensorFlow Lite model"],
  ["PK\u0003\u0004", 0, "a ZIP archive (PyTorch and Keras save so)"],
  ["\u0080\u0002", 0, "a Python pickle"],
  ["\u0089HDF\r\n", 0, "an HDF5 file (Keras saves so)"],
  ["\u001f\u008b", 0, "gzip data"],
  ["\u007fELF", 0, "a program"],
  ["GGUF", 0, "a GGUF model"],
  ["\u00ff\u00d8\u00ff", 0, "a JPEG image"],
  ["\u0089PNG", 0, "a PNG image"],
  ["RIFF", 0, "a RIFF file (sound, video or a WebP image)"],
];

const LFS_POINTER = /^version https:\/\/git-lfs\.github\.com\/spec\/v1\n[\s\S]*?^size (\d+)$/m;
const ANNEX_POINTER = /^(?:\.\.\/)*\.?(?:git\/)?\/?annex\/objects\//;

/**
 * What a file is that is not ONNX but often found in its place (pointer files of Git LFS and git-annex, web pages, other
 * model formats), as the end of a sentence; `undefined` where nothing says so.
 */
export function foreignFile(bytes: Uint8Array): string | undefined {
  // One character a byte. TextDecoder("latin1") is windows-1252, which has others for 0x80 to 0x9f.
  const head = String.fromCharCode(...bytes.subarray(0, 1024));
  const pointer = LFS_POINTER.exec(head);
  if (pointer !== null) {
    return `a Git LFS pointer of ${bytes.length} bytes to a file of ${pointer[1]} (fetch it with "git lfs pull")`;
  }
  if (ANNEX_POINTER.test(head)) return 'a git-annex pointer (fetch the file with "git annex get")';
  if (/^\s*<(?:!doctype html|html)/i.test(head)) {
    return "a web page (a download link often gives one in place of the file)";
  }
  return MARKS.find(([mark, offset]) => head.startsWith(mark, offset))?.[2];
}
