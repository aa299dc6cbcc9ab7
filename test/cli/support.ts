import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, vi } from 'vitest';
import { runProgram } from '../../src/cli/program.ts';
import { initialThresholds } from '../../src/eval/defaults.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { writeSafetensors } from '../../src/model/safetensors.ts';
import { writeDataset } from '../data/folders.ts';

export interface Answer {
  code: number | null;
  /** What was written to standard error and output. */
  error: string;
  output: string;
}

/** Runs a command line inside this process. */
export async function command(...args: string[]): Promise<Answer> {
  const answer = { error: '', output: '' };
  const collect = (stream: 'error' | 'output') => (text: string | Uint8Array) => {
    answer[stream] += String(text);
    return true;
  };
  const spies = [
    vi.spyOn(process.stderr, 'write').mockImplementation(collect('error')),
    vi.spyOn(process.stdout, 'write').mockImplementation(collect('output')),
    vi.spyOn(console, 'log').mockImplementation((line: string) => {
      answer.output += `${line}\n`;
    }),
  ];
  try {
    return { code: await runProgram(args), ...answer };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

const root = resolve(import.meta.dirname, '../..');
const nodeArguments = (args: string[]): string[] => ['--import', 'tsx', resolve(root, 'src/cli/main.ts'), ...args];

/** Runs a command line as a user does. */
export function processOf(...args: string[]): Answer {
  const { status, stderr, stdout } = spawnSync(process.execPath, nodeArguments(args), { cwd: root, encoding: 'utf8' });
  return { code: status, error: stderr, output: stdout };
}

/** Starts a command line as a user does. */
export function spawnProcess(...args: string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, nodeArguments(args), { cwd: root });
}

/** Writes a checkpoint of zeros for a model, as its metadata tell; `shapes` may spoil what the file holds. */
export function writeWeights(
  path: string,
  config: MaskRCNNConfig,
  classes: string[],
  spoil: (shapes: Map<string, readonly number[]>) => void = () => undefined,
): string {
  const entries = [...new MaskRCNN(config).state.entries.values()];
  const shapes = new Map<string, readonly number[]>(entries.map(({ name, shape }) => [name, shape]));
  spoil(shapes);
  const tensors = [...shapes].map(([name, shape]) => ({
    name,
    dtype: 'F32' as const,
    shape: [...shape],
    data: new Float32Array(shape.reduce((product, side) => product * side, 1)),
  }));
  writeSafetensors(path, tensors, {
    format: 'webgpu-mask-rcnn',
    config: JSON.stringify(config),
    classes: JSON.stringify(classes),
    resize: '1',
    thresholds: JSON.stringify(initialThresholds(classes)),
    epoch: '1',
  });
  return path;
}

/** A data set with nothing wrong: two images of 12 × 10 with a cell each. */
export const LINES = ['a,1 3 13 3,12,10,round', 'b,5 2 17 2,12,10,round'];
export const good = (): string => writeDataset(LINES, ['a', 'b']);

/** One sentence, exit code 2, no device opened (that would be told) and nothing but `left` in the folder. */
export function expectRefusal(
  { code, error, output }: Answer,
  folder: string,
  parts: string[],
  left: string[] = [],
): void {
  expect(error.trimEnd().split('\n'), error).toHaveLength(1);
  for (const part of parts) expect(error).toContain(part);
  expect(error).not.toContain('Computing on');
  expect(error).not.toMatch(/\bat .*:\d+:\d+/);
  expect(output).toBe('');
  expect(code).toBe(2);
  expect(readdirSync(folder)).toEqual(left);
}
