import { z } from "zod";

export const ELEMENT_TYPES = [
  "float32",
  "float64",
  "float16",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "bool",
  "string",
] as const;
export const elementTypeSchema = z.enum(ELEMENT_TYPES);

/** Any text that ONNX allows, colons and slashes included, but what every object has already: tensors are looked up by name. */
export const tensorNameSchema = z
  .string()
  .min(1)
  .max(256)
  .refine((name) => !(name in Object.prototype), { error: "the name of a property of every object" });

/** Sizes; 0 stands for a dynamic one. */
export const dimsSchema = z
  .array(
    z
      .int()
      .min(0)
      .max(1 << 30),
  )
  .max(8);

/** How integers of a model's own input or output stand for numbers: `real = scale · (integer − zeroPoint)`. */
export const affineSchema = z.object({ scale: z.number().positive(), zeroPoint: z.int() });
export type Affine = z.output<typeof affineSchema>;
