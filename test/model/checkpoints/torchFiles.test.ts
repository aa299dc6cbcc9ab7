import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { bytesSource } from '../../../src/model/checkpoints/byteSource.ts';
import { openWeights } from '../../../src/model/checkpoints/weightsFile.ts';
import { expectedTensors, fixtureBytes, openFixture } from './fixtures.ts';

const open = (bytes: Uint8Array) => openWeights(bytesSource(bytes, 'w.pth'));

/** Where `text` begins in `bytes`. */
function find(bytes: Uint8Array, text: string): number {
  return Buffer.from(bytes).indexOf(text, 0, 'latin1');
}

describe('files of torch.save', () => {
  it.each([
    ['zip.pth', 'torch zip'],
    ['legacy.pth', 'torch legacy'],
    ['protocol4.pth', 'torch zip'],
    ['deflated.pth', 'torch zip'],
  ])('%s has every dtype, view and stride as torch says', async (name, form) => {
    const expected = expectedTensors();
    const file = await openFixture(name);
    expect(file.form).toBe(form);
    expect([...file.tensors.keys()]).toEqual([...expected.keys()]);
    for (const [tensor, { shape, values }] of expected) {
      expect(file.tensors.get(tensor)?.shape, tensor).toEqual(shape);
      expect([...(await file.read(tensor))], tensor).toEqual(values);
    }
    // In any order, and again.
    expect([...(await file.read('row'))]).toEqual([1.25, 1.5, 1.75, 2]);
    await expect(file.readFloat32('i64')).rejects.toThrow("tensor 'i64' has the dtype I64, expected floating-point");
    await expect(file.read('none')).rejects.toThrow(`${name} has no tensor 'none'.`);
  });

  it.each(['model.pth', 'state_dict.pth', 'model_state_dict.pth', 'model_legacy.pth'])(
    '%s: the state_dict lies beside an optimizer and numbers',
    async (name) => {
      const file = await openFixture(name);
      expect([...file.tensors].map(([tensor, { shape, dtype }]) => `${tensor} ${dtype} [${shape}]`)).toEqual([
        '0.weight F32 [3,2]',
        '0.bias F32 [3]',
        '1.weight F32 [3]',
        '1.bias F32 [3]',
        '1.running_mean F32 [3]',
        '1.running_var F32 [3]',
        '1.num_batches_tracked I64 []',
      ]);
      expect([...(await file.read('1.num_batches_tracked'))]).toEqual([1]);
    },
  );
});

describe('files that are refused', () => {
  it.each([
    [
      'hostile.pth',
      'its pickle names __builtin__.eval, but only tensors, OrderedDict and plain containers are read and nothing is run',
    ],
    ['hostile_legacy.pth', 'its pickle names __builtin__.eval'],
    ['hostile_protocol4.pth', 'its pickle names builtins.eval'],
    ['module.pth', 'its pickle names torch.nn.modules.container.Sequential'],
    ['namespace.pth', 'its pickle names argparse.Namespace'],
    ['complex.pth', 'it holds tensors of torch.ComplexFloatStorage'.slice(3)],
    [
      'no_tensors.pth',
      'holds no state_dict: expected a dict of tensors, at the top or under model, state_dict, model_state_dict, but it holds a dict of epoch, lr.',
    ],
    ['list.pth', 'holds no state_dict'],
  ])('%s, by what is wrong with it', async (name, message) => {
    const opening = openFixture(name);
    await expect(opening).rejects.toThrow(UserError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(name);
  });

  it.each([
    ['an empty file', () => new Uint8Array(0), 'w.pth is empty'],
    ['two bytes', () => new Uint8Array([0x80, 2]), 'its pickle ends in the middle'],
    [
      'half a zip',
      () => fixtureBytes('zip.pth').subarray(0, 2500),
      'is cut short or damaged (zip: end of central directory not found)',
    ],
    [
      'half a legacy file',
      () => fixtureBytes('legacy.pth').subarray(0, 1500),
      'is cut short or damaged: its pickle ends',
    ],
    [
      'a legacy file without its last storage',
      () => fixtureBytes('legacy.pth').subarray(0, -4),
      'is cut short: its storage',
    ],
    ['a pickle of something else', () => new Uint8Array([0x80, 2, 0x4b, 1, 0x2e]), 'not one that torch.save wrote'],
    ['a pickle of a later protocol', () => new Uint8Array([0x80, 5, 0x80, 6, 0x4e, 0x2e]), 'protocol 6'],
  ])('%s', async (_, bytes, message) => {
    await expect(open(bytes())).rejects.toThrow(message);
  });

  it('a changed value, by its checksum', async () => {
    const bytes = fixtureBytes('zip.pth');
    const at = find(bytes, '\x00\x00\xc0\x3f\x00\x00\x10\xc0');
    bytes[at] ^= 1;
    const file = await open(bytes);
    await expect(file.read('f32')).rejects.toThrow('w.pth is damaged: its record zip/data/0 has another checksum.');
    expect([...(await file.read('i32'))]).toEqual([7, -8]);
  });

  it('a changed value in a storage of several views, whichever is read', async () => {
    const bytes = fixtureBytes('zip.pth');
    // 5.75, the last of the shared storage's 24 values; `row` ends before it.
    const at = find(bytes, '\x00\x00\xb0\x40\x00\x00\xb8\x40');
    bytes[at + 4] ^= 1;
    await expect((await open(bytes)).read('row')).rejects.toThrow('has another checksum');
  });

  it('a file of a big-endian machine', async () => {
    const legacy = fixtureBytes('legacy.pth');
    const flag = find(legacy, 'little_endian') + 'little_endian'.length + 2;
    expect(legacy[flag]).toBe(0x88);
    legacy[flag] = 0x89;
    await expect(open(legacy)).rejects.toThrow('big-endian');
  });

  it('a storage whose length is not what the pickle says', async () => {
    const legacy = fixtureBytes('legacy.pth');
    // The values of `f32`, behind their number.
    const at = find(legacy, '\x00\x00\xc0\x3f\x00\x00\x10\xc0') - 8;
    expect(legacy[at]).toBe(6);
    legacy[at + 5] = 1;
    await expect(open(legacy)).rejects.toThrow('elements, but its pickle says 6');
  });
});
