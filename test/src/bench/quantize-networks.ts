import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";

/** Networks of known form with random weights of the usual initial size (He et al. 2015) for speed, memory and placement. */
class Network {
  readonly graph = new GraphBuilder();
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** Convolution with a bias, as after folding BatchNormalization. */
  conv(input: string, inputs: number, outputs: number, size: number, stride: number, group = 1): string {
    const fanIn = (inputs / group) * size * size;
    const half = Math.floor(size / 2);
    const weight = this.weight([outputs, inputs / group, size, size], Math.sqrt(2 / fanIn));
    return this.op("Conv", [input, weight, this.weight([outputs], 0.1)], {
      kernel_shape: { ints: [size, size] },
      pads: { ints: [half, half, half, half] },
      strides: { ints: [stride, stride] },
      group: { i: group },
    });
  }

  convRelu(input: string, inputs: number, outputs: number, size: number, stride: number, group = 1): string {
    return this.op("Relu", [this.conv(input, inputs, outputs, size, stride, group)]);
  }

  classifier(input: string, inputs: number, classes: number): Uint8Array {
    const flat = this.op("Flatten", [this.op("GlobalAveragePool", [input])]);
    const weight = this.weight([classes, inputs], Math.sqrt(1 / inputs));
    const operands = [flat, weight, this.weight([classes], 0.1)];
    this.graph.node("Gemm", operands, { transB: { i: 1 } }, ["logits"]);
    this.graph.output("logits", "float32", [1, classes]);
    return encodeModel(this.graph.build({ opset: 17 }));
  }

  op(operator: string, inputs: string[], attributes: Parameters<GraphBuilder["node"]>[2] = {}): string {
    return this.graph.node(operator, inputs, attributes)[0]!;
  }

  weight(dims: readonly number[], deviation: number): string {
    const length = dims.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length }, () => this.normal() * deviation);
    return this.graph.initializer(float32Tensor("", dims, values));
  }

  normal(): number {
    const uniform = (): number => {
      this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
      return (this.#state + 1) / (2 ** 32 + 1);
    };
    return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  }
}

/** The form of ResNet-18 (He et al. 2016) on 224×224: 11.7 million parameters, 1.8 billion multiply-adds. */
export function residualNetwork(): Uint8Array {
  const net = new Network(11);
  net.graph.input("image", "float32", [1, 3, 224, 224]);
  const stem = net.convRelu("image", 3, 64, 7, 2);
  let at = net.op("MaxPool", [stem], {
    kernel_shape: { ints: [3, 3] },
    strides: { ints: [2, 2] },
    pads: { ints: [1, 1, 1, 1] },
  });
  let channels = 64;
  for (const [stage, width] of [64, 128, 256, 512].entries()) {
    for (let block = 0; block < 2; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      const inner = net.conv(net.convRelu(at, channels, width, 3, stride), width, width, 3, 1);
      const skip = stride === 1 && channels === width ? at : net.conv(at, channels, width, 1, stride);
      at = net.op("Relu", [net.op("Add", [inner, skip])]);
      channels = width;
    }
  }
  return net.classifier(at, channels, 1000);
}

/** The form of MobileNetV1 (Howard et al. 2017) on 224×224: 4.2 million parameters, depthwise and pointwise convolutions. */
export function depthwiseNetwork(): Uint8Array {
  const net = new Network(12);
  net.graph.input("image", "float32", [1, 3, 224, 224]);
  let at = net.convRelu("image", 3, 32, 3, 2);
  let channels = 32;
  const blocks: readonly (readonly [number, number])[] = [
    [64, 1],
    [128, 2],
    [128, 1],
    [256, 2],
    [256, 1],
    [512, 2],
    ...Array.from({ length: 5 }, () => [512, 1] as const),
    [1024, 2],
    [1024, 1],
  ];
  for (const [width, stride] of blocks) {
    at = net.convRelu(at, channels, channels, 3, stride, channels);
    at = net.convRelu(at, channels, width, 1, 1);
    channels = width;
  }
  return net.classifier(at, channels, 1000);
}

/** Products only, as in the feed-forward part of a transformer: 4 blocks of 512 → 2048 → 512. */
export function productNetwork(): Uint8Array {
  const net = new Network(13);
  net.graph.input("tokens", "float32", [16, 512]);
  let at = "tokens";
  for (let block = 0; block < 4; block++) {
    const wide = net.op("Relu", [net.op("MatMul", [at, net.weight([512, 2048], Math.sqrt(2 / 512))])]);
    const narrow = net.op("MatMul", [wide, net.weight([2048, 512], Math.sqrt(1 / 2048))]);
    at = net.op("Add", [at, narrow]);
  }
  net.graph.output(at, "float32", [16, 512]);
  return encodeModel(net.graph.build({ opset: 17 }));
}

/** Images as a camera gives them to such a network: smooth, with noise. */
export function* imageFeeds(
  count: number,
  seed: number,
): Generator<{ image: { type: "float32"; dims: number[]; data: Float32Array } }> {
  const noise = new Network(seed);
  for (let index = 0; index < count; index++) {
    const data = new Float32Array(3 * 224 * 224);
    const [fx, fy, phase] = [2 + (index % 5), 1 + (index % 7), index];
    for (let at = 0; at < data.length; at++) {
      const [x, y] = [(at % 224) / 224, (Math.floor(at / 224) % 224) / 224];
      data[at] = Math.sin(2 * Math.PI * (fx * x + fy * y) + phase + at / 50_176);
    }
    for (let at = 0; at < data.length; at += 4) data[at]! += noise.normal() / 2;
    yield { image: { type: "float32", dims: [1, 3, 224, 224], data } };
  }
}
