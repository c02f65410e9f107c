/**
 * ONNX Runtime from 1.29 on writes an identifier of the device to disk and reports sessions, models and errors to its maker,
 * unless this variable is set before its first session (microsoft/onnxruntime#27379). What a device runs is its owner's
 * affair: nothing is sent unless the owner sets the variable to something else.
 */
const VARIABLE = "ORT_DISABLE_TELEMETRY";

/**
 * Keeps ONNX Runtime from reporting, in this process and its children. A thread's environment is a copy, which native code
 * does not see: the main thread calls this before it starts one.
 */
export function forbidTelemetry(): void {
  process.env[VARIABLE] ??= "1";
}
