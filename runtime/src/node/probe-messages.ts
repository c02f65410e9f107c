import { z } from "zod";

/** What a probing process is asked, as one JSON line on its standard input. */
export type ProbeRequest =
  | {
      readonly kind: "package";
      readonly packageDir: string;
      readonly executionProvider: string;
      readonly variant: string;
      readonly threadCount: number;
      readonly runsMax: number;
    }
  | { readonly kind: "built-in"; readonly executionProvider: string }
  | { readonly kind: "library" };

/** What it answers, as one JSON line on its file descriptor 3: native code may write to the standard ones. */
export const probeReplySchema = z.object({
  works: z.boolean(),
  correct: z.boolean(),
  medianMs: z.number().nullable(),
  shares: z.record(z.string(), z.number()).nullable(),
  reason: z.object({ code: z.string(), message: z.string() }).optional(),
  /** Of a `library` request: its version, and the file that is loaded where the system says so (Linux). */
  version: z.string().optional(),
  libraryPath: z.string().optional(),
});
export type ProbeReply = z.output<typeof probeReplySchema>;
