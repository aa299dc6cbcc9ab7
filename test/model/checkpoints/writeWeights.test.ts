import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesSource } from '../../../src/model/checkpoints/byteSource.ts';
import { openWeights, type WeightsFile } from '../../../src/model/checkpoints/weightsFile.ts';
import { type LazyTensor, writeSafetensorsTo, writeTorchTo } from '../../../src/model/checkpoints/writeWeights.ts';
import { decodeInto, elementCount, encodeValues } from '../../../src/model/dtypes.ts';
import { encodeSafetensors } from '../../../src/model/safetensorsFormat.ts';
import { numberToHalf } from '../../../src/tensor/halves.ts';
import { fixturePath } from './fixtures.ts';

const writers = { safetensors: writeSafetensorsTo, torch: writeTorchTo };

async function written(
  form: keyof typeof writers,
  tensors: readonly LazyTensor[],
  metadata: Record<string, string> = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  await writers[form]((bytes) => pieces.push(bytes.slice()), tensors, metadata);
  return new Uint8Array(Buffer.concat(pieces));
}

function tensor(
  name: string,
  dtype: LazyTensor['dtype'],
  shape: readonly number[],
  values: readonly number[],
): LazyTensor {
  const data =
    dtype === 'F32' || dtype === 'F16'
      ? Float32Array.from(values)
      : dtype === 'U8' || dtype === 'BOOL'
        ? Uint8Array.from(values)
        : Int32Array.from(values);
  return { name, dtype, shape, values: async () => data };
}

async function contents(file: WeightsFile): Promise<unknown[]> {
  const list: unknown[] = [];
  for (const [name, { dtype, shape }] of file.tensors)
    list.push([name, dtype, [...shape], [...(await file.read(name))]]);
  return list;
}

/** Every dtype and rank that is written. */
const example = [
  tensor('backbone.conv.weight', 'F32', [2, 3, 1, 1], [1.5, -2.25, 0.1, 3e38, 1e-40, -0]),
  tensor('norm.num_batches_tracked', 'I64', [], [-5]),
  tensor('h', 'F16', [2, 2], [0.5, -65504, 2 ** -24, 1024]),
  tensor(
    'i',
    'I32',
    [300],
    Array.from({ length: 300 }, (_, i) => i * 1000),
  ),
  tensor('b', 'BOOL', [1, 3], [1, 0, 1]),
  tensor('u.é', 'U8', [2], [0, 255]),
  tensor('none', 'F32', [0, 2], []),
];
const metadata = { format: 'webgpu-mask-rcnn', classes: '["a","é"]' };

describe('weights that are written', () => {
  it.each(['safetensors', 'torch'] as const)('as %s, read back', async (form) => {
    const file = await openWeights(bytesSource(await written(form, example, metadata), 'w'));
    expect(file.metadata).toEqual(metadata);
    const wanted = await Promise.all(
      example.map(async ({ name, dtype, shape, values }) => [name, dtype, [...shape], [...(await values())]]),
    );
    if (form === 'torch') expect(await contents(file)).toEqual(wanted);
    else expect(new Set(await contents(file))).toEqual(new Set(wanted));
    expect(file.form).toBe(form === 'torch' ? 'torch zip' : 'safetensors');
  });

  it('as safetensors, are the bytes of the writer in memory', async () => {
    const plain = await Promise.all(example.map(async (given) => ({ ...given, data: await given.values() })));
    const whole = encodeSafetensors(plain as Parameters<typeof encodeSafetensors>[0], metadata);
    expect(await written('safetensors', example.toReversed(), metadata)).toEqual(whole);
  });

  it('as torch, are the bytes that PyTorch was seen to load', async () => {
    const bytes = await written('torch', example, metadata);
    const path = fixturePath('written.pth');
    // Written anew only by hand, and then to be loaded by torch.test.ts.
    if (!existsSync(path) && process.env.WRITE_FIXTURES) writeFileSync(path, bytes);
    expect(Buffer.from(bytes).equals(readFileSync(path))).toBe(true);
  });

  it('as torch, have every storage aligned to 64 bytes, as PyTorch’s own', async () => {
    const bytes = Buffer.from(await written('torch', example, metadata));
    let records = 0;
    for (let at = bytes.indexOf('PK\x03\x04'); at >= 0; at = bytes.indexOf('PK\x03\x04', at + 4)) {
      expect((at + 30 + bytes.readUInt16LE(at + 26) + bytes.readUInt16LE(at + 28)) % 64).toBe(0);
      expect(bytes.readUInt16LE(at + 8), 'stored').toBe(0);
      records++;
    }
    expect(records).toBe(example.length + 4);
  });

  it('hold one tensor at a time', async () => {
    let open = 0;
    const counted = example.map((given) => ({
      ...given,
      values: async () => {
        expect(++open).toBe(1);
        await new Promise((done) => setTimeout(done));
        open--;
        return given.values();
      },
    }));
    for (const form of ['safetensors', 'torch'] as const) await written(form, counted);
  });
});

describe('float16', () => {
  it('is rounded to nearest, ties to even', () => {
    const cases: [number, number][] = [
      [0, 0],
      [-0, 0x8000],
      [1, 0x3c00],
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [1 + 2 ** -11 + 2 ** -20, 0x3c01],
      [65504, 0x7bff],
      [65519, 0x7bff],
      [65520, 0x7c00],
      [Number.POSITIVE_INFINITY, 0x7c00],
      [Number.NEGATIVE_INFINITY, 0xfc00],
      [2 ** -24, 1],
      [2 ** -25, 0],
      [2 ** -25 + 2 ** -40, 1],
      [2 ** -14, 0x400],
      [2 ** -14 - 2 ** -26, 0x400],
      [2 - 2 ** -12, 0x4000],
    ];
    for (const [value, bits] of cases) expect(numberToHalf(value), `${value}`).toBe(bits);
    expect(numberToHalf(Number.NaN) & 0x7fff).toBeGreaterThan(0x7c00);
  });

  it('reads back every one of its numbers, and is the nearest to all others', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const values = new Float32Array(65536);
    decodeInto(values, 0, 'F16', new Uint8Array(bits.buffer), 'test');
    const numbers = bits.filter((half) => (half & 0x7fff) <= 0x7c00);
    for (const half of numbers)
      if (numberToHalf(values[half]) !== half) throw new Error(`${half} reads as ${values[half]}`);
    fc.assert(
      fc.property(fc.float({ noNaN: true, min: -65504, max: 65504 }), (value) => {
        const half = numberToHalf(value);
        const off = Math.abs(values[half] - value);
        for (const other of [half - 1, half + 1]) {
          if ((other & 0x7fff) < 0x7c00) expect(Math.abs(values[other & 0xffff] - value)).toBeGreaterThanOrEqual(off);
        }
      }),
    );
  });

  it('refuses what it cannot hold', () => {
    expect(() => encodeValues('F16', new Float32Array([1, 7e4]), "Tensor 'x'")).toThrow(
      "Tensor 'x' holds 70000 at index 1, more than float16 can.",
    );
    expect(elementCount([])).toBe(1);
  });
});
