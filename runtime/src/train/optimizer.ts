import { FieldloopError } from "@fieldloop/protocol";

/** A contiguous run of the flat parameter array that is updated alike: one tensor. */
export interface ParameterSegment {
  readonly offset: number;
  readonly size: number;
  /** Factor on the step size. */
  readonly rateScale: number;
  /** Decoupled weight decay. */
  readonly decay: number;
}

export interface Optimizer {
  /** State arrays by name, each as long as the parameters: what a checkpoint must hold. */
  readonly state: Readonly<Record<string, Float32Array>>;
  /** Updates `theta` in place. `step` counts from 0. */
  update(theta: Float32Array, gradient: Float32Array, rate: number, step: number): void;
}

/** AdamW (Loshchilov and Hutter 2019): bias-corrected moments, decay apart from the gradient. */
export function adamW(
  segments: readonly ParameterSegment[],
  count: number,
  options: { readonly beta1?: number; readonly beta2?: number; readonly epsilon?: number } = {},
): Optimizer {
  const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 } = options;
  const first = new Float32Array(count);
  const second = new Float32Array(count);
  return {
    state: { first, second },
    update(theta, gradient, rate, step) {
      const correction1 = 1 - beta1 ** (step + 1);
      const correction2 = Math.sqrt(1 - beta2 ** (step + 1));
      for (const segment of segments) {
        const scaled = (rate * segment.rateScale) / correction1;
        const shrink = 1 - rate * segment.rateScale * segment.decay;
        const end = segment.offset + segment.size;
        for (let i = segment.offset; i < end; i++) {
          const g = gradient[i]!;
          const m = beta1 * first[i]! + (1 - beta1) * g;
          const v = beta2 * second[i]! + (1 - beta2) * g * g;
          first[i] = m;
          second[i] = v;
          theta[i] = theta[i]! * shrink - (scaled * m) / (Math.sqrt(v) / correction2 + epsilon);
        }
      }
    },
  };
}

/** Stochastic gradient descent with heavy-ball momentum (Polyak 1964) and decoupled decay. */
export function sgdMomentum(
  segments: readonly ParameterSegment[],
  count: number,
  momentum: number,
): Optimizer {
  const velocity = new Float32Array(count);
  return {
    state: { velocity },
    update(theta, gradient, rate) {
      for (const segment of segments) {
        const scaled = rate * segment.rateScale;
        const shrink = 1 - scaled * segment.decay;
        const end = segment.offset + segment.size;
        for (let i = segment.offset; i < end; i++) {
          const moved = momentum * velocity[i]! + gradient[i]!;
          velocity[i] = moved;
          theta[i] = theta[i]! * shrink - scaled * moved;
        }
      }
    },
  };
}

export interface RateSchedule {
  readonly rate: number;
  readonly steps: number;
  readonly warmupSteps: number;
  readonly schedule: "cosine" | "constant";
}

/** Step size at `step`: a linear rise over the warm-up, then constant or half a cosine down to 0 (Loshchilov and Hutter 2017). */
export function rateAt(step: number, { rate, steps, warmupSteps, schedule }: RateSchedule): number {
  if (step < warmupSteps) return (rate * (step + 1)) / warmupSteps;
  if (schedule === "constant") return rate;
  const progress = (step - warmupSteps) / Math.max(1, steps - warmupSteps);
  return (rate * (1 + Math.cos(Math.PI * Math.min(1, progress)))) / 2;
}

/** Length of a gradient (Euclidean norm, summed in double precision). */
export function gradientNorm(gradient: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < gradient.length; i++) sum += gradient[i]! * gradient[i]!;
  return Math.sqrt(sum);
}

/** Scales a gradient longer than `limit` back to it (Pascanu et al. 2013); 0 means no limit. */
export function clipGradient(gradient: Float32Array, norm: number, limit: number): void {
  if (limit === 0 || norm <= limit) return;
  const factor = limit / norm;
  for (let i = 0; i < gradient.length; i++) gradient[i] = gradient[i]! * factor;
}

/** Throws `training_diverged` when the loss or the gradient is not finite: the parameters were not touched by this step. */
export function guardFinite(loss: number, norm: number, step: number): void {
  if (Number.isFinite(loss) && Number.isFinite(norm)) return;
  throw new FieldloopError(
    "training_diverged",
    `Train: step ${step} gave loss ${loss} and gradient norm ${norm}; try a smaller rate or clipNorm`,
    { detail: { step } },
  );
}

/** Moves the running average of the parameters towards them. */
export function updateAverage(average: Float32Array, theta: Float32Array, decay: number): void {
  for (let i = 0; i < theta.length; i++) average[i] = decay * average[i]! + (1 - decay) * theta[i]!;
}
