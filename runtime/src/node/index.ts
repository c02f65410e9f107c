export { ortNode } from "./ort.js";
