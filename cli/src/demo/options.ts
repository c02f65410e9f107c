/** Lengths of the chapters, seconds. Accuracy over two cameras at 15 fps for 30 s is 900 judged predictions: 99 % is known to ±0.7 points. */
export const DEMO_TIMES = {
  measureS: 30,
  feedbackDelayS: 5,
  firstPredictionS: 60,
  trainingS: 150,
  rolloutS: 150,
} as const;

export interface StoryOptions {
  /** Label by the simulator's truth instead of waiting for a person in the console. */
  readonly unattended: boolean;
}
