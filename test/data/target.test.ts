import { expect, it } from 'vitest';
import { makeTarget, withoutCrowds } from '../../src/data/target.ts';

it('withoutCrowds keeps cells with their boxes, labels and masks, and a target without crowds as it is', () => {
  const boxes = Float32Array.from({ length: 12 }, (_, i) => i);
  const masks = Uint8Array.of(1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1);
  const all = makeTarget(boxes, Int32Array.of(1, 2, 3), masks, { imageId: 5 });
  expect(withoutCrowds(all)).toBe(all);
  const mixed = { ...all, iscrowd: Uint8Array.of(0, 1, 0) };
  expect(withoutCrowds(mixed)).toEqual(
    makeTarget(Float32Array.of(0, 1, 2, 3, 8, 9, 10, 11), Int32Array.of(1, 3), Uint8Array.of(1, 0, 0, 1, 1, 1, 1, 1), {
      imageId: 5,
    }),
  );
  const crowds = withoutCrowds({ ...all, iscrowd: Uint8Array.of(1, 1, 1) });
  expect([crowds.labels.length, crowds.boxes.length, crowds.masks.length]).toEqual([0, 0, 0]);
});
