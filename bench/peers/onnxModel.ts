import { load, type Tensor } from './serve.ts';

/** What is used of protobufjs. */
interface Protobuf {
  Root: {
    fromJSON(json: object): {
      lookupType(name: string): { fromObject(o: object): object; encode(m: object): { finish(): Uint8Array } };
    };
  };
}

/** The part of onnx.proto3 (github.com/onnx/onnx) that a graph of one node needs. */
const SCHEMA = {
  nested: {
    Attribute: {
      fields: {
        name: { id: 1, type: 'string' },
        ints: { id: 8, type: 'int64', rule: 'repeated', options: { packed: false } },
        type: { id: 20, type: 'int32' },
      },
    },
    Node: {
      fields: {
        input: { id: 1, type: 'string', rule: 'repeated' },
        output: { id: 2, type: 'string', rule: 'repeated' },
        name: { id: 3, type: 'string' },
        opType: { id: 4, type: 'string' },
        attribute: { id: 5, type: 'Attribute', rule: 'repeated' },
      },
    },
    Tensor: {
      fields: {
        dims: { id: 1, type: 'int64', rule: 'repeated', options: { packed: false } },
        dataType: { id: 2, type: 'int32' },
        name: { id: 8, type: 'string' },
        rawData: { id: 9, type: 'bytes' },
      },
    },
    Dimension: { fields: { dimValue: { id: 1, type: 'int64' } } },
    Shape: { fields: { dim: { id: 1, type: 'Dimension', rule: 'repeated' } } },
    TensorType: { fields: { elemType: { id: 1, type: 'int32' }, shape: { id: 2, type: 'Shape' } } },
    Type: { fields: { tensorType: { id: 1, type: 'TensorType' } } },
    ValueInfo: { fields: { name: { id: 1, type: 'string' }, type: { id: 2, type: 'Type' } } },
    Graph: {
      fields: {
        node: { id: 1, type: 'Node', rule: 'repeated' },
        name: { id: 2, type: 'string' },
        initializer: { id: 5, type: 'Tensor', rule: 'repeated' },
        input: { id: 11, type: 'ValueInfo', rule: 'repeated' },
        output: { id: 12, type: 'ValueInfo', rule: 'repeated' },
      },
    },
    OperatorSet: { fields: { domain: { id: 1, type: 'string' }, version: { id: 2, type: 'int64' } } },
    Model: {
      fields: {
        irVersion: { id: 1, type: 'int64' },
        graph: { id: 7, type: 'Graph' },
        opsetImport: { id: 8, type: 'OperatorSet', rule: 'repeated' },
      },
    },
  },
};

const FLOAT = 1;
const INTS = 7;

/** Inputs of one node: those with `values` are constants of the model. */
export interface NodeModel {
  opType: string;
  inputs: Record<string, { shape: number[]; values?: Tensor['values'] }>;
  outputShape: number[];
  attributes: Record<string, number[]>;
}

/** An ONNX file of one node, whose output is called y. */
export async function onnxModel({ opType, inputs, outputShape, attributes }: NodeModel): Promise<Uint8Array> {
  const { default: protobuf } = await load<{ default: Protobuf }>('protobufjs');
  const model = protobuf.Root.fromJSON(SCHEMA).lookupType('Model');
  const value = (name: string, shape: number[]) => ({
    name,
    type: { tensorType: { elemType: FLOAT, shape: { dim: shape.map((dimValue) => ({ dimValue })) } } },
  });
  const all = Object.entries(inputs);
  const node = {
    input: Object.keys(inputs),
    output: ['y'],
    name: 'node',
    opType,
    attribute: Object.entries(attributes).map(([name, ints]) => ({ name, ints, type: INTS })),
  };
  const message = model.fromObject({
    irVersion: 8,
    opsetImport: [{ domain: '', version: 17 }],
    graph: {
      name: 'layer',
      node: [node],
      initializer: all.flatMap(([name, { shape, values }]) =>
        values
          ? [
              {
                name,
                dims: shape,
                dataType: FLOAT,
                rawData: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
              },
            ]
          : [],
      ),
      input: all.filter(([, { values }]) => !values).map(([name, { shape }]) => value(name, shape)),
      output: [value('y', outputShape)],
    },
  });
  return model.encode(message).finish();
}
