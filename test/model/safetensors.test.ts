import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { formulaWeight } from '../../src/model/formulaWeights.ts';
import {
  encodeSafetensors,
  openSafetensors,
  parseSafetensors,
  type TensorToWrite,
  writeSafetensors,
} from '../../src/model/safetensors.ts';

const goldens = resolve(import.meta.dirname, '../../../shared/goldens');

/** A file by hand: header text as given, then `data`. */
function file(header: string, data: ArrayBufferView = new Uint8Array(0)): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + data.byteLength);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 8 + json.length);
  return bytes;
}

/** One tensor `t` over all of `data`. */
function single(dtype: string, data: ArrayBufferView, count: number) {
  const header = `{"t":{"dtype":"${dtype}","shape":[${count}],"data_offsets":[0,${data.byteLength}]}}`;
  return parseSafetensors(file(header, data), 'x.safetensors');
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('reading', () => {
  it('reads floating dtypes as float32, at unaligned offsets too', () => {
    // 57 bytes of header leave every offset odd.
    const header = '{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   ';
    expect(header.length % 2).toBe(1);
    expect(parseSafetensors(file(header, new Float32Array([1.5, -2])), 'x').read('t')).toEqual(
      new Float32Array([1.5, -2]),
    );
    expect(single('F64', new Float64Array([0.1, -1e300]), 2).read('t')).toEqual(
      new Float32Array([0.1, Number.NEGATIVE_INFINITY]),
    );
    // float16: 1, -2, largest, smallest normal, smallest subnormal, largest subnormal, -0, inf, -inf, nan
    const half = new Uint16Array([
      0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x03ff, 0x8000, 0x7c00, 0xfc00, 0x7e00, 0x3555,
    ]);
    const expected = [1, -2, 65504, 2 ** -14, 2 ** -24, 1023 * 2 ** -24, -0, Infinity, -Infinity, NaN, 0.333251953125];
    expect(single('F16', half, 11).readFloat32('t')).toEqual(new Float32Array(expected));
    const bfloat = new Uint16Array([0x3f80, 0xc049, 0x8000, 0x7f80]);
    expect(single('BF16', bfloat, 4).readFloat32('t')).toEqual(new Float32Array([1, -3.140625, -0, Infinity]));
  });

  it('reads every other dtype as int32 and refuses values beyond it', () => {
    const cases: [string, ArrayBufferView & { length: number }, number[]][] = [
      ['I32', new Int32Array([-5, 2 ** 31 - 1]), [-5, 2 ** 31 - 1]],
      ['U8', new Uint8Array([0, 255]), [0, 255]],
      ['I8', new Int8Array([-128, 127]), [-128, 127]],
      ['U16', new Uint16Array([0, 65535]), [0, 65535]],
      ['I16', new Int16Array([-32768, 1]), [-32768, 1]],
      ['BOOL', new Uint8Array([0, 1, 255]), [0, 1, 1]],
      ['U32', new Uint32Array([0, 2 ** 31 - 1]), [0, 2 ** 31 - 1]],
      ['I64', new BigInt64Array([-(2n ** 31n), 2n ** 31n - 1n]), [-(2 ** 31), 2 ** 31 - 1]],
      ['U64', new BigUint64Array([7n]), [7]],
    ];
    for (const [dtype, data, values] of cases) {
      expect(single(dtype, data, data.length).readInt32('t')).toEqual(new Int32Array(values));
    }
    const beyond = "x.safetensors: tensor 't' holds 2147483648 at index 1, expected values that fit 32-bit integers.";
    expect(() => single('U32', new Uint32Array([0, 2 ** 31]), 2).read('t')).toThrow(new UserError(beyond));
    expect(() => single('I64', new BigInt64Array([0n, 2n ** 31n]), 2).read('t')).toThrow(new UserError(beyond));
    expect(() => single('I64', new BigInt64Array([-(2n ** 31n) - 1n]), 1).read('t')).toThrow(/-2147483649 at index 0/);
  });

  it('refuses the wrong kind of values and unknown names', () => {
    const float = single('F32', new Float32Array(1), 1);
    expect(() => float.readInt32('t')).toThrow("tensor 't' has the dtype F32, expected integers.");
    expect(() => single('I32', new Int32Array(1), 1).readFloat32('t')).toThrow('dtype I32, expected floating-point');
    expect(() => float.read('u')).toThrow(new UserError("x.safetensors has no tensor 'u'."));
    expect(() => float.readInt32('u')).toThrow(new UserError("x.safetensors has no tensor 'u'."));
  });

  const f32 = (shape: string, begin: number, end: number) =>
    `{"dtype":"F32","shape":${shape},"data_offsets":[${begin},${end}]}`;
  it.each<[string, Uint8Array<ArrayBuffer>, RegExp]>([
    ['no bytes', new Uint8Array(0), /^m\.st is not a safetensors file: it has 0 bytes/],
    [
      'a header beyond the file',
      file('{}').slice(0, 9),
      /^m\.st is cut short: its header should end at byte 10, but the file has 9 bytes\.$/,
    ],
    ['a header of absurd length', new Uint8Array(16).fill(0xff), /begins with a header length of 18446744073709551615/],
    ['an empty header', new Uint8Array(8), /header length of 0, expected 2 to/],
    ['no JSON', file('{"a":'), /^m\.st is not a safetensors file: its header is not JSON/],
    ['no UTF-8', file('{}').fill(0xff, 8), /header is not JSON/],
    ['an array', file('[]'), /header is not a JSON object/],
    ['metadata of numbers', file('{"__metadata__":{"a":1}}'), /__metadata__ is not an object of strings/],
    ['an entry that is none', file('{"a":3}'), /tensor 'a' is not described by an object/],
    [
      'an unknown dtype',
      file('{"a":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[0,0]}}'),
      /tensor 'a' has the dtype "F8_E4M3", expected one of BOOL/,
    ],
    ['no dtype', file('{"a":{"shape":[0],"data_offsets":[0,0]}}'), /tensor 'a' has the dtype undefined/],
    ['a negative side', file(`{"a":${f32('[-1]', 0, 4)}}`, new Float32Array(1)), /has the shape \[-1\]/],
    ['a broken side', file(`{"a":${f32('[0.5,2]', 0, 4)}}`, new Float32Array(1)), /has the shape \[0\.5,2\]/],
    ['no shape', file('{"a":{"dtype":"F32","data_offsets":[0,0]}}'), /has the shape undefined/],
    ['offsets backwards', file(`{"a":${f32('[0]', 4, 0)}}`), /has the data_offsets \[4,0\]/],
    [
      'three offsets',
      file('{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0,0]}}'),
      /has the data_offsets \[0,0,0\]/,
    ],
    [
      'a size off its shape',
      file(`{"a":${f32('[2]', 0, 4)}}`, new Float32Array(1)),
      /dtype F32 and shape \[2\] needs 8 bytes, but its data_offsets span 4/,
    ],
    [
      'an overlap',
      file(`{"a":${f32('[2]', 0, 8)},"b":${f32('[2]', 4, 12)}}`, new Float32Array(3)),
      /tensor 'b' overlaps the tensor before it: it begins at byte 4 of the data, expected 8/,
    ],
    [
      'a hole',
      file(`{"a":${f32('[1]', 0, 4)},"b":${f32('[1]', 8, 12)}}`, new Float32Array(3)),
      /tensor 'b' leaves a hole before it/,
    ],
    ['a late start', file(`{"a":${f32('[1]', 4, 8)}}`, new Float32Array(2)), /tensor 'a' leaves a hole/],
    [
      'missing data',
      file(`{"b":${f32('[2]', 4, 12)},"a":${f32('[1]', 0, 4)}}`, new Float32Array(2)),
      /^m\.st is cut short: it has \d+ bytes, expected \d+; the first incomplete tensor is 'b'\.$/,
    ],
    [
      'data behind the last',
      file(`{"a":${f32('[1]', 0, 4)}}`, new Float32Array(2)),
      /has 4 bytes behind its last tensor/,
    ],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => parseSafetensors(bytes, 'm.st')).toThrow(UserError);
    expect(() => parseSafetensors(bytes, 'm.st')).toThrow(message);
  });

  it('takes empty tensors between others, in any order of the header', () => {
    const header = `{"2":${f32('[1]', 4, 8)},"e":${f32('[0,3]', 4, 4)},"1":${f32('[]', 0, 4)}}`;
    const parsed = parseSafetensors(file(header, new Float32Array([7, 8])), 'x');
    expect([...parsed.tensors.keys()]).toEqual(['1', 'e', '2']);
    expect(parsed.read('1')).toEqual(new Float32Array([7]));
    expect(parsed.read('e')).toEqual(new Float32Array(0));
    expect(parsed.read('2')).toEqual(new Float32Array([8]));
  });
});

describe('writing', () => {
  it('gives exactly the bytes of the format', () => {
    const bytes = encodeSafetensors([{ name: 'b', dtype: 'U8', shape: [2], data: new Uint8Array([5, 6]) }], {
      z: '1',
      a: '"',
    });
    const json = '{"__metadata__":{"a":"\\"","z":"1"},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}';
    const padded = json.padEnd(Math.ceil(json.length / 8) * 8, ' ');
    expect(bytes).toEqual(file(padded, new Uint8Array([5, 6])));
  });

  it('orders by dtype and name, whatever the order given', () => {
    const tensors: TensorToWrite[] = [
      { name: '10', dtype: 'U8', shape: [1], data: new Uint8Array([1]) },
      { name: 'z', dtype: 'I64', shape: [], data: new Int32Array([-3]) },
      { name: '\u{1F52C}', dtype: 'F32', shape: [1], data: new Float32Array([2]) },
      { name: '\uFF5E', dtype: 'F32', shape: [1], data: new Float32Array([3]) },
      { name: 'a', dtype: 'I32', shape: [1], data: new Int32Array([4]) },
      { name: '9', dtype: 'BOOL', shape: [1], data: new Uint8Array([1]) },
    ];
    const bytes = encodeSafetensors(tensors, { x: '1', b: '2' });
    expect(encodeSafetensors([...tensors].reverse(), { b: '2', x: '1' })).toEqual(bytes);
    const parsed = parseSafetensors(bytes, 'x');
    expect([...parsed.tensors.keys()]).toEqual(['z', '\uFF5E', '\u{1F52C}', 'a', '10', '9']);
    expect(parsed.tensors.get('z')).toMatchObject({ dtype: 'I64', shape: [], length: 8 });
    expect(parsed.readInt32('z')).toEqual(new Int32Array([-3]));
    expect(parsed.metadata).toEqual({ b: '2', x: '1' });
  });

  it('refuses a name twice and data that does not fill its shape', () => {
    const a: TensorToWrite = { name: 'a', dtype: 'F32', shape: [1], data: new Float32Array(1) };
    expect(() => encodeSafetensors([a, { ...a }])).toThrow("the name 'a' is taken");
    expect(() => encodeSafetensors([{ ...a, name: '__metadata__' }])).toThrow('is taken');
    expect(() => encodeSafetensors([{ ...a, shape: [2] }])).toThrow("'a' of shape [2] needs 2 values, got 1");
  });

  it('round-trips any names, shapes and bits', () => {
    const tensor = fc.record({
      shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
      value: fc.float({ noNaN: true }),
    });
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'grapheme' }), tensor), (given) => {
        const tensors = Object.entries(given)
          .filter(([name]) => name !== '__metadata__')
          .map(([name, { shape, value }]): TensorToWrite => {
            const count = shape.reduce((a, b) => a * b, 1);
            return { name, dtype: 'F32', shape, data: Float32Array.from({ length: count }, (_, i) => value - i) };
          });
        const parsed = parseSafetensors(encodeSafetensors(tensors), 'x');
        expect(parsed.tensors.size).toBe(tensors.length);
        for (const { name, shape, data } of tensors) {
          expect(parsed.tensors.get(name)?.shape).toEqual(shape);
          expect(parsed.read(name)).toEqual(data);
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('files', () => {
  it('writes at once, reads lazily and closes', () => {
    const path = join(folder, 'new', 'a.safetensors');
    writeSafetensors(path, [{ name: 'w', dtype: 'F32', shape: [2, 2], data: new Float32Array([1, 2, 3, 4]) }], {
      k: 'v',
    });
    expect(readdirSync(join(folder, 'new'))).toEqual(['a.safetensors']);
    const opened = openSafetensors(path);
    expect(opened.path).toBe(path);
    expect(opened.metadata).toEqual({ k: 'v' });
    expect(opened.readFloat32('w')).toEqual(new Float32Array([1, 2, 3, 4]));
    // A file renamed over the path does not mix into what is open.
    writeSafetensors(path, [{ name: 'w', dtype: 'F32', shape: [2, 2], data: new Float32Array([5, 6, 7, 8]) }]);
    expect(opened.readFloat32('w')).toEqual(new Float32Array([1, 2, 3, 4]));
    opened.close();
    opened.close();
    expect(() => opened.read('w')).toThrow("was closed before tensor 'w' was read");
  });

  it('tells a file that shrinks while it is open', () => {
    const path = join(folder, 'shrinks.safetensors');
    writeSafetensors(path, [{ name: 'w', dtype: 'F32', shape: [4], data: new Float32Array(4) }]);
    const opened = openSafetensors(path);
    truncateSync(path, readFileSync(path).length - 4);
    expect(() => opened.read('w')).toThrow(
      new UserError(`${path} was cut short while it was read: tensor 'w' is incomplete.`),
    );
    opened.close();
  });

  it('names a missing file, a folder and a file of another kind', () => {
    const missing = join(folder, 'none.safetensors');
    expect(() => openSafetensors(missing)).toThrow(new UserError(`There is no file ${missing}.`));
    expect(() => openSafetensors(folder)).toThrow(
      new UserError(`${folder} is not a file, expected a file of weights.`),
    );
    const text = join(folder, 'text');
    writeFileSync(text, 'id,annotation\n1,2 3\n');
    expect(() => openSafetensors(text)).toThrow(`${text} is not a safetensors file`);
  });
});

describe.skipIf(!existsSync(goldens))('files of the reference writer', () => {
  it.each(['ops', 'tiny-boxes', 'tiny-batchnorm', 'resnet50', 'data'])('re-encodes %s byte for byte', (name) => {
    const path = join(goldens, name, name === 'data' ? 'data.safetensors' : 'tensors.safetensors');
    const opened = openSafetensors(path);
    const tensors = [...opened.tensors.values()].map((entry): TensorToWrite => {
      const { name, shape, dtype } = entry;
      const integers = () => opened.readInt32(name);
      if (dtype === 'F32') return { name, shape, dtype, data: opened.readFloat32(name) };
      if (dtype === 'I32' || dtype === 'I64') return { name, shape, dtype, data: integers() };
      if (dtype === 'U8' || dtype === 'BOOL') return { name, shape, dtype, data: Uint8Array.from(integers()) };
      throw new Error(`${path}: ${name} is ${dtype}`);
    });
    expect(tensors.length).toBeGreaterThan(0);
    expect(Buffer.compare(encodeSafetensors(tensors, opened.metadata), readFileSync(path))).toBe(0);
    opened.close();
  });

  it('reads a state_dict saved by PyTorch: the formula weights of tiny-basic', () => {
    const { config } = JSON.parse(readFileSync(join(goldens, 'tiny-basic/case.json'), 'utf8'));
    const opened = openSafetensors(join(goldens, 'checkpoints/state_dict.safetensors'));
    expect(opened.tensors.size).toBeGreaterThan(60);
    for (const { name, shape } of opened.tensors.values()) {
      const expected = formulaWeight(name, shape, config.seed, { basicBlocks: config.block === 'basic' });
      expect(Buffer.compare(Buffer.from(opened.readFloat32(name).buffer), Buffer.from(expected.buffer)), name).toBe(0);
    }
    opened.close();
  });

  it('refuses a file that ends half-way', () => {
    const path = join(goldens, 'checkpoints/truncated.safetensors');
    expect(() => openSafetensors(path)).toThrow(UserError);
    expect(() => openSafetensors(path)).toThrow(
      `${path} is cut short: it has 993058 bytes, expected 1986116; the first`,
    );
  });
});
