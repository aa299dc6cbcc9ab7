import { mkdirSync, mkdtempSync, readFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { verifyCommand } from '../../src/cli/verifyCommand.ts';
import type { Device } from '../../src/tensor/device.ts';
import { runVerify } from '../../src/verify/runVerify.ts';
import { testDevice } from '../support/device.ts';
import { opsFolder, smallCases } from './folders.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** The rows that are off. */
async function off(golden: string): Promise<string[]> {
  const cases = await runVerify({ golden, device });
  return cases.flatMap(({ rows }) => rows.filter(({ ok }) => !ok).map(({ name }) => name));
}

async function refusal(golden: string): Promise<UserError> {
  const error: unknown = await runVerify({ golden, device }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof UserError)) throw new Error(`expected a UserError, got ${error}`);
  expect(error.exitCode).toBe(2);
  return error;
}

describe('operator cases made by hand', () => {
  test('hold, with torch layouts converted and gradients compared', async () => {
    const golden = opsFolder(smallCases);
    const json = join(mkdtempSync(join(tmpdir(), 'verify-')), 'out', 'verify.json');
    const told: string[] = [];
    const cases = await runVerify({
      golden,
      device,
      json,
      progress: (name, done, total, what) => told.push(`${name} ${done}/${total} ${what}`),
    });
    expect(cases.map(({ name, kind }) => [name, kind])).toEqual([['small', 'ops']]);
    expect(cases[0].rows.map(({ name, ok }) => [name, ok])).toEqual([
      ['0.out (relu)', true],
      ['0.grad.x (relu)', true],
      ['1.out (linear)', true],
      ['1.grad.x (linear)', true],
      ['1.grad.weight (linear)', true],
      ['1.grad.bias (linear)', true],
      ['2.out (nms)', true],
    ]);
    expect(told).toEqual(['small 1/3 relu', 'small 2/3 linear', 'small 3/3 nms']);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
      adapter: { kind: device.gpu.opened.info.kind },
      ok: true,
      cases: [{ name: 'small', rows: JSON.parse(JSON.stringify(cases[0].rows)) }],
    });
  });

  test.each([
    ['0.out', '0.out (relu)'],
    ['0.grad.x', '0.grad.x (relu)'],
    ['1.grad.weight', '1.grad.weight (linear)'],
    ['2.out', '2.out (nms)'],
  ])('one changed value of %s is found', async (changed, row) => {
    const golden = opsFolder(smallCases, (_, tensors) => {
      const tensor = tensors.find(({ name }) => name === changed);
      if (tensor) tensor.data[1] += tensor.data instanceof Float32Array ? 0.01 : 1;
    });
    expect(await off(golden)).toEqual([row]);
  });

  test('an operator that refuses its input is a row with its words', async () => {
    const golden = opsFolder([{ ...smallCases[1], inputs: { ...smallCases[1].inputs, x: smallCases[0].inputs.x } }]);
    const [{ rows }] = await runVerify({ golden, device });
    expect(rows.filter(({ ok }) => !ok).length).toBeGreaterThan(0);
    const bad = opsFolder([
      { ...smallCases[1], inputs: { ...smallCases[1].inputs, x: { shape: [4], data: Float32Array.of(1, 2, 3, 4) } } },
    ]);
    const [refused] = (await runVerify({ golden: bad, device }))[0].rows;
    expect(refused).toMatchObject({ ok: false, stage: 'linear' });
    expect(refused.note).toContain('linear');
  });

  test('leaves no memory behind', async () => {
    const golden = opsFolder(smallCases);
    await runVerify({ golden, device });
    const before = device.gpu.counters().inUse;
    await runVerify({ golden, device });
    expect(device.gpu.counters().inUse).toBe(before);
  });

  test('a folder of folders runs each that holds a case', async () => {
    const parent = mkdtempSync(join(tmpdir(), 'goldens-'));
    renameSync(opsFolder([smallCases[0]]), join(parent, 'a'));
    renameSync(opsFolder([smallCases[2]]), join(parent, 'b'));
    mkdirSync(join(parent, 'data'));
    const cases = await runVerify({ golden: parent, device });
    expect(cases.map(({ rows }) => rows.length)).toEqual([2, 1]);
  });
});

describe('folders that cannot be read', () => {
  test('a missing folder, file or case', async () => {
    expect((await refusal('/nowhere/at/all')).message).toBe('There is no folder /nowhere/at/all.');
    const empty = mkdtempSync(join(tmpdir(), 'golden-'));
    expect((await refusal(empty)).message).toContain('expected case.json');
    writeFileSync(join(empty, 'case.json'), '{"kind": "ops", "cases": []}');
    expect((await refusal(empty)).message).toBe(`There is no file ${join(empty, 'tensors.safetensors')}.`);
    expect((await refusal(join(empty, 'case.json'))).message).toContain('is not a folder');
  });

  test('a case file of another kind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'golden-'));
    for (const [text, expected] of [
      ['{', 'is not readable JSON'],
      ['{"kind": "data"}', 'kind'],
      ['{"kind": "ops"}', 'cases'],
      ['{"kind": "ops", "cases": [{"index": 0, "op": 3, "params": {}, "inputs": [], "grads": []}]}', 'cases.0.op'],
      ['{"kind": "model", "config": {}, "images": 1, "steps": 1, "gradients": "full"}', 'config.seed'],
    ]) {
      writeFileSync(join(folder, 'case.json'), text);
      expect((await refusal(folder)).message).toContain(expected);
    }
    const config = {
      seed: 1,
      permutation: 'hashed',
      lr: 0.1,
      weightDecay: 0,
      lossNames: ['loss_mask'],
      block: 'round',
    };
    writeFileSync(
      join(folder, 'case.json'),
      JSON.stringify({ kind: 'model', config, images: 1, steps: 1, gradients: 'full' }),
    );
    expect((await refusal(folder)).message).toContain('option block');
  });

  test('an unknown operator, a missing tensor, a missing parameter', async () => {
    const unknown = opsFolder(smallCases, ({ cases }) => {
      cases[1].op = 'toString';
    });
    expect((await refusal(unknown)).message).toContain("unknown operator 'toString'");
    const missing = opsFolder(smallCases, (_, tensors) => {
      tensors.splice(
        tensors.findIndex(({ name }) => name === '1.grad.weight'),
        1,
      );
    });
    expect((await refusal(missing)).message).toContain("has no tensor '1.grad.weight'");
    const parameter = opsFolder(smallCases, ({ cases }) => {
      cases[2].params = { iouThreshold: 'half' };
    });
    expect((await refusal(parameter)).message).toContain("parameter 'iouThreshold' must be a number");
    const stranger = opsFolder(smallCases, ({ cases }) => {
      cases[0].grads = ['y'];
    });
    expect((await refusal(stranger)).message).toContain("gradient of 'y'");
  });

  test('truncated tensors', async () => {
    const folder = opsFolder(smallCases);
    truncateSync(join(folder, 'tensors.safetensors'), 700);
    expect((await refusal(folder)).message).toContain('cut short');
  });
});

describe('verify command', () => {
  const run = (...flags: string[]) => verifyCommand().exitOverride().parseAsync(flags, { from: 'user' });
  const adapter = process.env.WEBGPU_ADAPTER ?? 'auto';

  test('ends well when all hold, with exit code 1 naming the tensor when one is off', async () => {
    await run('--golden', opsFolder([smallCases[0]]), '--adapter', adapter);
    const golden = opsFolder([smallCases[0]], (_, tensors) => {
      tensors[1].data[0] = 5;
    });
    await expect(run('--golden', golden, '--adapter', adapter)).rejects.toMatchObject({
      exitCode: 1,
      message: '1 of 2 tensors is off: small 0.out (relu).',
    });
  });

  test('exit code 2 for a folder or an adapter that is not there', async () => {
    await expect(run('--golden', '/nowhere')).rejects.toMatchObject({ exitCode: 2 });
    await expect(run('--golden', opsFolder([]), '--adapter', 'abacus')).rejects.toMatchObject({ exitCode: 2 });
  });
});
