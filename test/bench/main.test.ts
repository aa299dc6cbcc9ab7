import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../..');

function bench(...args: string[]) {
  return spawnSync(process.execPath, ['--import', 'tsx', 'bench/main.ts', ...args], { cwd: root, encoding: 'utf8' });
}

it('answers an unknown option with one sentence and exit code 2', () => {
  const { status, stderr, stdout } = bench('--peer-pressure');
  expect(stderr).toBe("unknown option '--peer-pressure'; see --help.\n");
  expect(stdout).toBe('');
  expect(status).toBe(2);
});

it('lists cases without opening an adapter', () => {
  const { status, stderr, stdout } = bench('--list', '--filter', 'matmul', '--size', 'full');
  expect(stdout).toBe(
    'matmul 512³: naive, tile from buffers, tile from textures, matmul\nmatmul 1024³: naive, tile from buffers, tile from textures, matmul\nmatmul 1024³ beside others: matmul\n',
  );
  expect(stderr).toBe('');
  expect(status).toBe(0);
});
