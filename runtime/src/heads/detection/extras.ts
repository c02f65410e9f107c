import { extraColumns, type Decoder, type DetectionHead } from "./decoder.js";
import { cell, type Table } from "./table.js";

/** Points and mask coefficients behind the classes, which end before column `first`; points are scaled like the boxes. */
export function extrasOf(
  head: DetectionHead,
  table: Table,
  first: number,
  scaleX: number,
  scaleY: number,
): Pick<Decoder, "point" | "coefficient"> {
  const { points } = extraColumns(head);
  const stride = head.keypoints?.scored === false ? 2 : 3;
  return {
    point: (row, index, into) => {
      const column = first + index * stride;
      into[0] = cell(table, row, column) * scaleX;
      into[1] = cell(table, row, column + 1) * scaleY;
      into[2] = stride === 3 ? cell(table, row, column + 2) : 1;
    },
    coefficient: (row, index) => cell(table, row, first + points + index),
  };
}
