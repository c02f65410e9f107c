/** `@fieldloop/runtime/web`: sessions in the browser. */
export { ortWeb, type WebBackendOptions } from "./ort.js";
