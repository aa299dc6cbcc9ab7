import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { Random } from '../../../src/data/random.ts';
import { matchedSource, matchWeights } from '../../../src/model/checkpoints/match.ts';
import { openWeightsFile } from '../../../src/model/checkpoints/openWeightsFile.ts';
import { MaskRCNN } from '../../../src/model/maskRcnn.ts';
import { type ModelGolden, openGolden } from '../../../src/verify/golden.ts';
import { evaluationRows, readInputs } from '../../../src/verify/model.ts';
import type { Row } from '../../../src/verify/rows.ts';
import { command } from '../../cli/support.ts';
import { testDevice } from '../../support/device.ts';

const goldens = resolve(import.meta.dirname, '../../../../shared/goldens');
const folder = join(goldens, 'checkpoints');

/** The weights of tiny-basic in the forms that PyTorch users have them. */
describe.skipIf(!existsSync(folder))('checkpoints of the goldens', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'checkpoints-'));
  afterAll(() => rmSync(scratch, { recursive: true }));

  /** Every eval stage and the detections of tiny-basic, with the weights of a file. */
  async function rowsWith(path: string): Promise<Row[]> {
    const golden = openGolden(join(goldens, 'tiny-basic')) as ModelGolden;
    const model = new MaskRCNN(golden.config);
    const file = await openWeightsFile(path);
    try {
      const match = matchWeights(file, model.state, { purpose: 'whole' });
      await model.allocate(await testDevice(), new Random(1), matchedSource(file, match));
      return await evaluationRows(golden, model, readInputs(golden).images);
    } finally {
      file.close();
      model.dispose();
      golden.tensors.close();
    }
  }

  it.each([
    'state_dict.pth',
    'state_dict_legacy.pth',
    'state_dict_old_names.pth',
    'state_dict_strided.pth',
    'training_checkpoint.pth',
    'state_dict.safetensors',
  ])('%s gives the expected stages and detections', async (name) => {
    const rows = await rowsWith(join(folder, name));
    expect(rows.filter(({ stage }) => stage === 'detections')).toHaveLength(8);
    expect(rows.filter(({ ok }) => !ok)).toEqual([]);
  });

  it('state_dict_half.pth gives the expected detections, though its weights are rounded', async () => {
    const rows = (await rowsWith(join(folder, 'state_dict_half.pth'))).filter(({ stage }) => stage === 'detections');
    expect(rows).toHaveLength(8);
    expect(rows.filter(({ ok }) => !ok)).toEqual([]);
  });

  it.each(['hostile.pth', 'truncated.pth', 'truncated.safetensors'])(
    '%s is refused, and nothing runs',
    async (name) => {
      await expect(openWeightsFile(join(folder, name))).rejects.toThrow(UserError);
      for (const args of [
        ['convert-weights', join(folder, name), join(scratch, 'out.pth')],
        ['predict', '--weights', join(folder, name), '--images', scratch, '--out', join(scratch, 'found')],
        ['evaluate', '--weights', join(folder, name), '--data', scratch],
        ['train', '--weights', join(folder, name), '--data', scratch, '--out', join(scratch, 'run')],
      ]) {
        const { code, error, output } = await command(...args);
        expect(code).toBe(2);
        expect(error.trimEnd().split('\n')).toHaveLength(1);
        expect(error).toContain(name);
        expect(output).toBe('');
      }
      expect(readdirSync(scratch)).toEqual([]);
      expect(existsSync('pwned')).toBe(false);
    },
  );
});
