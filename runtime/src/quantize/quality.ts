import { FieldloopError } from "@fieldloop/protocol";
import type { QuantizationReport } from "./types.js";

/** What a quantized model must reach on every output, against the float model on calibration inputs. */
export interface QualityBound {
  readonly cosineMin: number;
  /** Applies to outputs of the form [rows, classes]. */
  readonly topOneAgreementMin?: number;
}

/** Throws `quantization_rejected`, naming the output and the worst layer, when a report misses its bound. */
export function requireQuality(report: QuantizationReport, bound: QualityBound): void {
  const worst = report.layers.reduce((a, b) => (b.sqnrDb < a.sqnrDb ? b : a), report.layers[0]!);
  const hint = `; worst layer "${worst.node}" (${worst.operator}) at ${worst.sqnrDb.toFixed(1)} dB`;
  for (const output of report.outputs) {
    // Written so that NaN misses the bound too.
    if (!(output.cosine >= bound.cosineMin)) {
      throw new FieldloopError(
        "quantization_rejected",
        `Quantize: output "${output.name}" has cosine ${output.cosine.toFixed(5)} to float, wanted ${bound.cosineMin}${hint}`,
      );
    }
    const agreement = output.topOneAgreement;
    if (agreement !== undefined && agreement < (bound.topOneAgreementMin ?? 0)) {
      throw new FieldloopError(
        "quantization_rejected",
        `Quantize: output "${output.name}" agrees with float on ${(100 * agreement).toFixed(1)} % of rows, wanted ${100 * (bound.topOneAgreementMin ?? 0)} %${hint}`,
      );
    }
  }
}
