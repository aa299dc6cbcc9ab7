import { appendFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { crc32c, EventFile, encodeEvent, eventFileName, tfRecord } from '../../src/report/tensorboard.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { crc32cBitwise, readEvent, readEventFile, readRecords, shownScalars } from '../reference/eventFile.ts';

afterAll(removeFolders);

describe('crc32c', () => {
  it('gives the values of RFC 3720, appendix B.4', () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  });

  it('equals the division bit by bit', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (data) => crc32c(data) === crc32cBitwise(data)));
  });
});

describe('an event', () => {
  // Written by tensorboard 2.21 itself (its RecordWriter and its protobuf classes).
  const first = { wallTime: 1700000000.25, fileVersion: 'brain.Event:2' };
  const scalar = { wallTime: 1700000001.5, step: 300, scalars: { 'train/total': 0.1 } };
  const start = { wallTime: 1700000002, step: 7, sessionStart: true };

  it('has the bytes of TensorBoard’s own writer', () => {
    const bytes = Buffer.concat([first, scalar, start].map((event) => tfRecord(encodeEvent(event))));
    expect(bytes.toString('hex')).toBe(
      '1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9220000000000000078113dfd0900006040fc54d94110ac022a140a120a0b747261696e2f746f74616c15cdcccc3d57215e2f0f000000000000006d532b090900008040fc54d94110073a020801d1e17c88',
    );
  });

  it('comes back whole, whatever steps and names', () => {
    const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 30 }).filter((text) => text !== '__proto__');
    const value = fc.float({ noNaN: true });
    const step = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
    fc.assert(
      fc.property(step, fc.dictionary(name, value, { maxKeys: 5, noNullPrototype: true }), (at, scalars) => {
        const [data] = readRecords(tfRecord(encodeEvent({ wallTime: 12.5, step: at, scalars })));
        expect(readEvent(data)).toEqual({ wallTime: 12.5, step: at, scalars });
      }),
    );
  });

  it('is refused by a reader once a bit of it is off', () => {
    const record = tfRecord(encodeEvent(scalar));
    for (let at = 8; at < record.length; at++) {
      const spoilt = Buffer.from(record);
      spoilt[at] ^= 1;
      expect(() => readRecords(spoilt), String(at)).toThrow('wrong check sum');
    }
  });
});

describe('EventFile', () => {
  it('names its file by the session, tells its version first and appends', () => {
    const dir = temporaryFolder();
    let time = 100;
    const file = new EventFile(dir, 0, () => time++);
    expect(readdirSync(dir)).toEqual(['events.out.tfevents.0000000001.webgpu-mask-rcnn']);
    const before = readFileSync(file.path);
    file.scalars(1, { 'step/total': 2.5, 'step/lr': 0.5 });
    expect(readFileSync(file.path).subarray(0, before.length)).toEqual(before);
    expect(readEventFile(file.path)).toEqual([
      { wallTime: 100, step: 0, fileVersion: 'brain.Event:2', scalars: {} },
      { wallTime: 101, step: 0, scalars: {}, session: 1 },
      { wallTime: 102, step: 1, scalars: { 'step/total': 2.5, 'step/lr': 0.5 } },
    ]);
  });

  it('of a later session hides the steps that it does again, a torn last record included', () => {
    const dir = temporaryFolder();
    const killed = new EventFile(dir, 0);
    for (const step of [1, 2, 3, 4]) killed.scalars(step, { loss: step });
    appendFileSync(killed.path, tfRecord(encodeEvent({ wallTime: 1, step: 5, scalars: { loss: 5 } })).subarray(0, 30));
    const again = new EventFile(dir, 3);
    expect(again.path).toBe(join(dir, eventFileName(2)));
    again.scalars(3, { loss: 30 });
    expect(shownScalars(dir).get('loss')).toEqual([
      [1, 1],
      [2, 2],
      [3, 30],
    ]);
  });
});
