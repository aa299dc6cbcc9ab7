import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TensorToWrite, writeSafetensors } from '../../src/model/safetensors.ts';

export interface SmallCase {
  op: string;
  params?: Record<string, unknown>;
  inputs: Record<string, { shape: number[]; data: Float32Array | Int32Array }>;
  out: { shape: number[]; data: Float32Array | Int32Array };
  up?: { shape: number[]; data: Float32Array };
  grads?: Record<string, { shape: number[]; data: Float32Array }>;
}

export function floats(shape: number[], ...values: number[]): { shape: number[]; data: Float32Array } {
  return { shape, data: Float32Array.from(values) };
}

/** A fresh folder of the goldens' format with these operator cases. `change` may spoil the case file or the tensors. */
export function opsFolder(
  cases: readonly SmallCase[],
  change: (json: { kind: unknown; cases: Record<string, unknown>[] }, tensors: TensorToWrite[]) => void = () =>
    undefined,
): string {
  const folder = mkdtempSync(join(tmpdir(), 'golden-'));
  const tensors: TensorToWrite[] = [];
  const put = (name: string, { shape, data }: { shape: number[]; data: Float32Array | Int32Array }): void => {
    tensors.push(
      data instanceof Float32Array
        ? { name, dtype: 'F32', shape, data: data.slice() }
        : { name, dtype: 'I32', shape, data: data.slice() },
    );
  };
  const json = {
    name: 'small',
    kind: 'ops' as unknown,
    seed: 7,
    cases: cases.map(({ op, params = {}, inputs, out, up, grads = {} }, index): Record<string, unknown> => {
      for (const [name, tensor] of Object.entries(inputs)) put(`${index}.in.${name}`, tensor);
      put(`${index}.out`, out);
      if (up) put(`${index}.up`, up);
      for (const [name, tensor] of Object.entries(grads)) put(`${index}.grad.${name}`, tensor);
      return { index, op, params, inputs: Object.keys(inputs), grads: Object.keys(grads) };
    }),
  };
  change(json, tensors);
  writeFileSync(join(folder, 'case.json'), JSON.stringify(json));
  writeSafetensors(join(folder, 'tensors.safetensors'), tensors);
  return folder;
}

/** Worked by hand. y = relu(x); y = x·Wᵀ + b with torch's weight [out, in]; two boxes of IoU 0.8 and one apart. */
export const smallCases: readonly SmallCase[] = [
  {
    op: 'relu',
    inputs: { x: floats([2, 2], -1, 2, 3, -4) },
    out: floats([2, 2], 0, 2, 3, 0),
    up: floats([2, 2], 1, 10, 100, 1000),
    grads: { x: floats([2, 2], 0, 10, 100, 0) },
  },
  {
    op: 'linear',
    inputs: { x: floats([1, 2], 1, 2), weight: floats([3, 2], 1, 2, 3, 4, 5, 6), bias: floats([3], 10, 20, 30) },
    out: floats([1, 3], 15, 31, 47),
    up: floats([1, 3], 1, 2, 3),
    grads: { x: floats([1, 2], 22, 28), weight: floats([3, 2], 1, 2, 2, 4, 3, 6), bias: floats([3], 1, 2, 3) },
  },
  {
    op: 'nms',
    params: { iouThreshold: 0.5 },
    inputs: {
      boxes: floats([3, 4], 0, 0, 10, 10, 0, 0, 10, 8, 20, 20, 30, 30),
      scores: floats([3], 0.1, 0.9, 0.5),
    },
    out: { shape: [2], data: Int32Array.of(1, 2) },
  },
];
