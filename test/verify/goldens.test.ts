import { copyFileSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { openSafetensors } from '../../src/model/safetensors.ts';
import { runVerify } from '../../src/verify/runVerify.ts';
import { testDevice } from '../support/device.ts';

const goldens = resolve(dirname(fileURLToPath(import.meta.url)), '../../../shared/goldens');

/** The rows that are off, and how many there are. */
async function verify(golden: string): Promise<{ total: number; off: string[] }> {
  const [{ rows }] = await runVerify({ golden, device: await testDevice() });
  const off = rows.filter(({ ok }) => !ok).map(({ name, error, note }) => `${name}: ${error} (${note})`);
  return { total: rows.length, off };
}

/** A copy of a golden folder in which one float of each of these tensors is another. */
function corrupted(name: string, tensors: readonly string[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'corrupted-'));
  copyFileSync(join(goldens, name, 'case.json'), join(folder, 'case.json'));
  const path = join(goldens, name, 'tensors.safetensors');
  const file = openSafetensors(path);
  const bytes = Buffer.from(readFileSync(path));
  for (const tensor of tensors) {
    const entry = file.tensors.get(tensor);
    if (!entry) throw new Error(`${path} has no ${tensor}.`);
    const values = file.readFloat32(tensor);
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const at = Math.floor(values.length / 2);
    bytes.writeFloatLE(values[at] + 0.05 * largest, entry.offset + at * 4);
  }
  file.close();
  writeFileSync(join(folder, 'tensors.safetensors'), bytes);
  return folder;
}

/** Made by test/python/golden_v2.py with torchvision 0.29. */
const fixtures = resolve(dirname(fileURLToPath(import.meta.url)), '../fixtures');

test('the v2 form of the model holds', { timeout: 600_000 }, async () => {
  const { total, off } = await verify(join(fixtures, 'tiny-v2'));
  expect(off).toEqual([]);
  expect(total).toBeGreaterThan(300);
});

describe.skipIf(!existsSync(join(goldens, 'ops/case.json')))('the golden cases hold', () => {
  test.each([
    ['ops', 150],
    ['tiny-basic', 200],
    ['tiny-bottleneck', 200],
    ['tiny-boxes', 150],
    ['tiny-batchnorm', 200],
  ])('%s', { timeout: 600_000 }, async (name, least) => {
    const { total, off } = await verify(join(goldens, name));
    expect(off).toEqual([]);
    expect(total).toBeGreaterThan(least);
  });

  test.each([
    ['tiny-basic', 640],
    ['tiny-batchnorm', 640],
  ])('%s in parts, where one binding holds %d KiB', { timeout: 600_000 }, async (name, limit) => {
    const { gpu } = await testDevice();
    const { bindingLimit } = gpu;
    const before = gpu.counters().parts;
    gpu.bindingLimit = limit * 1024;
    try {
      const { off } = await verify(join(goldens, name));
      expect(off).toEqual([]);
    } finally {
      gpu.bindingLimit = bindingLimit;
    }
    expect(gpu.counters().parts - before).toBeGreaterThan(20);
  });

  test('and each changed value of a model case is found', { timeout: 600_000 }, async () => {
    const changed = [
      'train.features.1',
      'train.box.pool',
      'grad.backbone.body.layer2.0.conv1.weight',
      'trained.rpn.head.conv.0.0.bias',
      'eval.rpn.deltas.0',
      'detections.0.scores',
    ];
    const { off } = await verify(corrupted('tiny-boxes', changed));
    expect(off.map((row) => row.slice(0, row.indexOf(':')))).toEqual(changed);
  });
});
