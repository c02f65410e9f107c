import { create } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType } from "../backend.js";
import {
  GraphProtoSchema,
  ModelProtoSchema,
  ValueInfoProtoSchema,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "./generated/onnx_pb.js";
import { makeNode, type AttributeValue } from "./graph.js";
import { dataTypeOf } from "./tensor.js";

export interface BuildOptions {
  /** Version of the default operator set. */
  readonly opset: number;
  /** ONNX IR version; 10 (May 2024) is the newest that every supported runtime reads. */
  readonly irVersion?: number;
  readonly producer?: string;
  readonly graphName?: string;
  /** Operator sets besides the default one, e.g. `{ "com.microsoft": 1 }`. */
  readonly domains?: Readonly<Record<string, number>>;
}

/** Describes one graph input, output or value; a string dimension is symbolic; without dims the shape stays open. */
export function valueInfo(
  name: string,
  elementType: ElementType,
  dims?: readonly (number | string)[],
): ValueInfoProto {
  const shape = dims && {
    dim: dims.map((dim) => ({
      value:
        typeof dim === "number"
          ? ({ case: "dimValue", value: BigInt(dim) } as const)
          : ({ case: "dimParam", value: dim } as const),
    })),
  };
  return create(ValueInfoProtoSchema, {
    name,
    type: {
      value: {
        case: "tensorType",
        value: { elemType: dataTypeOf(elementType), ...(shape === undefined ? {} : { shape }) },
      },
    },
  });
}

/** Builds an ONNX graph node by node; names that are not given are made unique. Nodes must come in execution order. */
export class GraphBuilder {
  readonly #inputs: ValueInfoProto[] = [];
  readonly #outputs: ValueInfoProto[] = [];
  readonly #initializers: TensorProto[] = [];
  readonly #nodes: NodeProto[] = [];
  readonly #names = new Set<string>();
  readonly #counters = new Map<string, number>();

  /** Adds a graph input and returns its name. */
  input(name: string, elementType: ElementType, dims: readonly (number | string)[]): string {
    this.#inputs.push(valueInfo(this.#claim(name), elementType, dims));
    return name;
  }

  /** Declares an existing tensor as graph output and returns its name. */
  output(name: string, elementType: ElementType, dims?: readonly (number | string)[]): string {
    this.#outputs.push(valueInfo(name, elementType, dims));
    return name;
  }

  /** Adds an initializer and returns its name; a tensor without a name gets one. */
  initializer(tensor: TensorProto): string {
    tensor.name = tensor.name === "" ? this.unique("const") : this.#claim(tensor.name);
    this.#initializers.push(tensor);
    return tensor.name;
  }

  /**
   * Adds a node and returns the names of its outputs. `outputs` is a list of names or how many to name; "" in
   * `inputs` leaves an optional input out. `domain` is for operators outside the default set.
   */
  node(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    outputs: readonly string[] | number = 1,
    domain?: string,
  ): string[] {
    const label = this.unique(opType);
    const names =
      typeof outputs === "number"
        ? Array.from({ length: outputs }, (_, index) =>
            this.unique(index === 0 ? `${label}_out` : `${label}_out${index}`),
          )
        : outputs.map((name) => (name === "" ? "" : this.#claim(name)));
    this.#nodes.push(
      makeNode(opType, inputs, names, attributes, {
        name: label,
        ...(domain === undefined ? {} : { domain }),
      }),
    );
    return names;
  }

  /** A tensor name that is not taken yet, starting with `stem`; it is taken from then on. */
  unique(stem: string): string {
    let count = this.#counters.get(stem) ?? 0;
    let name = count === 0 ? stem : `${stem}_${count}`;
    while (this.#names.has(name)) name = `${stem}_${++count}`;
    this.#counters.set(stem, count + 1);
    this.#names.add(name);
    return name;
  }

  build(options: BuildOptions): ModelProto {
    return create(ModelProtoSchema, {
      irVersion: BigInt(options.irVersion ?? 10),
      producerName: options.producer ?? "fieldloop",
      opsetImport: [
        { domain: "", version: BigInt(options.opset) },
        ...Object.entries(options.domains ?? {}).map(([domain, version]) => ({
          domain,
          version: BigInt(version),
        })),
      ],
      graph: create(GraphProtoSchema, {
        name: options.graphName ?? "main",
        input: this.#inputs,
        output: this.#outputs,
        initializer: this.#initializers,
        node: this.#nodes,
      }),
    });
  }

  #claim(name: string): string {
    if (name === "") throw new FieldloopError("invalid_argument", "Build graph: a tensor needs a name");
    if (this.#names.has(name)) {
      throw new FieldloopError("already_exists", `Build graph: the name "${name}" is taken`);
    }
    this.#names.add(name);
    return name;
  }
}
