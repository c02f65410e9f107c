const MESSAGE_LENGTH_MAX = 1000;

/** An engine's error for people: without the paths and C++ signatures of its sources. */
export function cleanEngineText(message: string): string {
  return (
    message
      .replaceAll(/Load model from \S+ failed:\s*/g, "")
      .replaceAll(/Fatal error:\s*/g, "")
      // `/onnxruntime_src/…/file.cc:123 void ns::Function(args) [with T = float] what went wrong`
      .replaceAll(/\/\S*onnxruntime\/\S+:\d+ .*?\)(?:::<lambda\(\)>)?(?: const)?(?: \[with [^\]]*\])? /g, "")
      .replaceAll(/\s+/g, " ")
      .trim()
      .slice(0, MESSAGE_LENGTH_MAX)
  );
}
