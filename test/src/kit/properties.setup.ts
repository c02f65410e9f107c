import fc from "fast-check";
import { propertySeed } from "./random.js";

/** Before each file of tests: its properties are tried with the same cases in every run; `npm run fuzz` tries others. */
fc.configureGlobal({ seed: propertySeed() });
