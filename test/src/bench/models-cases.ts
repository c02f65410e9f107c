/** What `fieldloop model run --json` says, as far as it is read here. */
export interface RunReport {
  readonly frames: number;
  readonly failed: number;
  readonly latencyMsP50: number | null;
  readonly accuracy: number | null;
  readonly labelled: number;
  readonly found: Readonly<Record<string, number>>;
  readonly predictions: readonly {
    readonly label: string;
    readonly confidence: number;
    readonly boxes?: readonly {
      readonly class: number;
      readonly score: number;
      readonly x0: number;
      readonly y0: number;
      readonly x1: number;
      readonly y1: number;
    }[];
  }[];
}

/** What a model was found to do, beside what it is known to do. */
export interface Finding {
  readonly text: string;
  readonly value: number;
  readonly unit: string;
  /** What is known of it; no bar where nothing is. */
  readonly reference?: { readonly value: number; readonly tolerance: number };
}

/** A public model file and all that is said to import, run and quantize it. Files are named from the data folder. */
export interface ModelCase {
  readonly id: string;
  /** Below `models/`. */
  readonly file: string;
  /** Options of `fieldloop model import` after the file. */
  readonly options: readonly string[];
  readonly preset: string;
  /** Inputs and options of `fieldloop model run`; `DATA/` stands for the folder of data sets. */
  readonly run: readonly string[];
  readonly find: (report: RunReport) => Finding;
  /** Options of `fieldloop model quantize`, or why there is nothing to quantize. */
  readonly quantize: readonly string[] | string;
}

const BOOK = "DATA/videos/book.mkv";
const CARS = "DATA/videos/car-detection.mp4";
const BOTTLES = "DATA/videos/bottle-detection.mp4";
const SPEECH = "DATA/silero-audio/test.wav";
const IRIS = "DATA/iris/Iris.csv";
const DIGITS = "DATA/mnist5k/images-idx3-ubyte.gz";
const DIGIT_LABELS = "DATA/mnist5k/labels-idx1-ubyte.gz";
const WORDS = "DATA/mcu-kws/micro_speech_input";
/** Scores of a face that is certain; the slim network has less to see with. */
const FACE_SCORE_MIN = 0.99;
const SLIM_SCORE_MIN = 0.95;
/** Calibrating on a minute of video wants no more of it. */
const FEW = ["--calibration-max", "24", "--evaluation-max", "24"];

const video = (path: string, fps: number): string => `video:${path}?fps=${fps}&pace=none`;
const percent = (share: number): number => 100 * share;

function faces(id: string, file: string, preset: string, scoreMin: number): ModelCase {
  return {
    id,
    file: `ultraface/${file}.onnx`,
    options: [],
    preset,
    run: [video(BOOK, 2)],
    find: ({ predictions }) => {
      const scores = predictions.map(({ boxes }) => boxes?.[0]?.score ?? 0);
      const sure = scores.filter((score) => score >= scoreMin).length;
      return {
        text: `a face in ${sure} of ${scores.length} frames, scores from ${Math.min(...scores).toFixed(3)}`,
        value: percent(sure / scores.length),
        unit: "% of the frames",
        reference: { value: 100, tolerance: 0 },
      };
    },
    quantize: ["--data", video(BOOK, 12), ...FEW],
  };
}

function speech(id: string, file: string): ModelCase {
  return {
    id,
    file: `silero-vad/${file}.onnx`,
    options: [],
    preset: "silero-vad",
    run: [SPEECH],
    find: ({ found, frames }) => {
      const share = percent((found["speech"] ?? 0) / frames);
      return {
        text: `speech in ${share.toFixed(1)} % of ${frames} windows`,
        value: share,
        unit: "% speech",
        reference: { value: 77.4, tolerance: 0.5 },
      };
    },
    quantize: ["--method", "dynamic", "--data", SPEECH],
  };
}

function words(id: string, file: string, options: string, quantize: readonly string[] | string): ModelCase {
  return {
    id,
    file: `micro-kws/${file}.onnx`,
    options: [],
    preset: "keywords",
    run: ["0.bin", "1.bin"].map((name) =>
      options === "" ? `${WORDS}/${name}` : `tensor:${WORDS}/${name}?${options}`,
    ),
    find: ({ predictions }) => {
      const heard = predictions.map(({ label }) => label);
      const right = ["no", "yes"].filter((word, at) => heard[at] === word).length;
      return {
        text: `heard ${heard.map((word) => `“${word}”`).join(" and ")}, both ${right === 2 ? "right" : "not right"}`,
        value: right,
        unit: "of 2 words",
        reference: { value: 2, tolerance: 0 },
      };
    },
    quantize,
  };
}

function flowers(id: string, file: string, right: number): ModelCase {
  return {
    id,
    file: `iris-nn/${file}.onnx`,
    options: [
      ...["--preset", "tabular-classifier"],
      ...["--columns", "SepalLengthCm,SepalWidthCm,PetalLengthCm,PetalWidthCm"],
      ...["--labels", "Iris-setosa,Iris-versicolor,Iris-virginica"],
    ],
    preset: "tabular-classifier",
    run: [IRIS, "--label-column", "Species"],
    find: ({ accuracy, labelled }) => {
      const value = Math.round((accuracy ?? 0) * labelled);
      return {
        text: `${value} of ${labelled} rows right`,
        value,
        unit: `of ${labelled} rows`,
        reference: { value: right, tolerance: 0 },
      };
    },
    quantize: ["--data", IRIS],
  };
}

/** The 8-bit features of the keyword front-end: 26 in 256 steps from -128 (TensorFlow's micro_speech). */
const FEATURE_CODES = "scale=0.1015625&zero=-128";
const codes = (name: string): string => `tensor:${WORDS}/${name}?${FEATURE_CODES}`;

/** Every public model, with what it is known to do on public data. */
export const MODEL_CASES: readonly ModelCase[] = [
  faces("ultraface-rfb-320", "version-RFB-320", "ultraface", FACE_SCORE_MIN),
  faces("ultraface-slim-320", "version-slim-320", "ultraface", SLIM_SCORE_MIN),
  faces("ultraface-rfb-640", "version-RFB-640", "ultraface", FACE_SCORE_MIN),
  faces("ultraface-rfb-320-raw", "version-RFB-320_without_postprocessing", "ultraface-raw", FACE_SCORE_MIN),
  {
    id: "fastestdet",
    file: "fastestdet/FastestDet.onnx",
    options: [],
    preset: "fastestdet",
    run: [video(BOTTLES, 0.5)],
    find: ({ predictions }) => {
      const bottle = 39;
      // A bottle stands upright and takes a good part of the picture's height.
      const seen = predictions.filter(({ boxes }) =>
        boxes?.some((box) => box.class === bottle && box.y1 - box.y0 > box.x1 - box.x0),
      ).length;
      return {
        text: `an upright bottle in ${seen} of ${predictions.length} frames`,
        value: percent(seen / predictions.length),
        unit: "% of the frames",
        reference: { value: 95, tolerance: 5 },
      };
    },
    quantize: ["--data", video(BOTTLES, 2), ...FEW],
  },
  {
    id: "mnist-8",
    file: "mnist-8/mnist.onnx",
    options: [],
    preset: "mnist",
    run: [DIGITS, "--labels", DIGIT_LABELS],
    find: ({ accuracy, labelled }) => ({
      text: `${percent(accuracy ?? 0).toFixed(2)} % of ${labelled} digits right`,
      value: percent(accuracy ?? 0),
      unit: "% right",
      reference: { value: 98.3, tolerance: 0.1 },
    }),
    quantize: ["--data", DIGITS, "--labels", DIGIT_LABELS],
  },
  {
    id: "cifar10-cnn",
    file: "cifar10-cnn/ImageClassifier.onnx",
    options: [
      ...["--preset", "classifier-logits", "--mean", "0.5", "--std", "0.5"],
      ...["--labels", "plane,car,bird,cat,deer,dog,frog,horse,ship,truck"],
    ],
    preset: "classifier-logits",
    run: [video(CARS, 2)],
    find: ({ frames, failed }) => ({
      text: `runs on ${frames - failed} of ${frames} video frames (no labelled set here)`,
      value: frames - failed,
      unit: `of ${frames} frames`,
      reference: { value: frames, tolerance: 0 },
    }),
    quantize: ["--data", video(CARS, 4), ...FEW],
  },
  speech("silero-vad", "silero_vad"),
  speech("silero-vad-16k-op15", "silero_vad_16k_op15"),
  speech("silero-vad-half", "silero_vad_half"),
  speech("silero-vad-op18-ifless", "silero_vad_op18_ifless"),
  words("kws-fp32", "kws_fp32", FEATURE_CODES, ["--data", codes("0.bin"), codes("1.bin")]),
  words("kws-int8-io", "kws_int8_io", "", "it is an int8 model with int8 inputs and outputs already"),
  flowers("iris-network", "Network", 147),
  flowers("iris-regression", "Regression", 146),
  {
    id: "mosaic",
    file: "style-transfer/mosaic.onnx",
    options: [],
    preset: "image-to-image",
    run: [video(BOOK, 1), "--limit", "2"],
    find: ({ frames, failed }) => ({
      text: `${frames - failed} of ${frames} video frames became pictures`,
      value: frames - failed,
      unit: `of ${frames} frames`,
      reference: { value: frames, tolerance: 0 },
    }),
    quantize: ["--data", video(BOOK, 1), "--calibration-max", "3", "--evaluation-max", "2"],
  },
];
