import { expect, it } from 'vitest';
import { BindGroupCache } from '../../src/gpu/bindGroups.ts';

it('what is used again stays, what is not goes, and never more than two generations are kept', () => {
  const cache = new BindGroupCache();
  let made = 0;
  const use = (key: string): GPUBindGroup => cache.get(key, () => ({ label: String(made++) }) as GPUBindGroup);
  const kept = use('kept');
  const idle = use('idle');
  for (let i = 0; i < 20_000; i++) {
    use(`other ${i}`);
    if (i % 1000 === 0) expect(use('kept')).toBe(kept);
  }
  expect(cache.created).toBe(made);
  expect(made).toBe(20_002);
  expect(use('other 19999').label).toBe(String(20_001));
  expect(use('idle')).not.toBe(idle);
  // The last 4096 at least are known, the first not.
  for (let i = 16_000; i < 20_000; i++) use(`other ${i}`);
  expect(made).toBe(20_003);
  cache.clear();
  expect(use('kept')).not.toBe(kept);
});
