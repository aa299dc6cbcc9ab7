import { describe, expect, it } from 'vitest';
import { DerivedCache } from '../../src/gpu/derived.ts';
import type { PooledBuffer } from '../../src/gpu/pool.ts';

type Resource = { name: string; size: number };

const buffer = (id: number, offset = 0): PooledBuffer => ({ id, contents: { id }, offset }) as unknown as PooledBuffer;

function cache(budget: number) {
  const released: string[] = [];
  const derived = new DerivedCache<Resource>(budget, ({ name }) => void released.push(name));
  const make =
    (name: string, size = 10) =>
    () => ({ name, size });
  return { derived, released, make };
}

describe('derived operands', () => {
  it('are made once, and go as soon as any source is written to', () => {
    const { derived, released, make } = cache(100);
    const [weight, scale] = [buffer(1), buffer(2)];
    expect(derived.get([weight, scale], 'packed', make('first')).name).toBe('first');
    expect(derived.get([weight, scale], 'packed', make('second')).name).toBe('first');
    expect(derived.get([weight], 'packed', make('other')).name).toBe('other');
    derived.forget(scale.contents);
    expect(released).toEqual(['first']);
    expect(derived.get([weight, scale], 'packed', make('third')).name).toBe('third');
    expect(derived.get([weight], 'packed', make('none')).name).toBe('other');
  });

  it('of slices of one buffer are apart, and go out of date together', () => {
    const { derived, released, make } = cache(100);
    const whole = buffer(1);
    const slices = [0, 256].map((offset) => ({ ...whole, id: 7 + offset, offset }));
    slices.forEach((slice, i) => {
      expect(derived.get([slice], 'copied', make(`slice ${i}`)).name).toBe(`slice ${i}`);
    });
    derived.forget(whole.contents);
    expect(released).toEqual(['slice 0', 'slice 1']);
    slices.forEach((slice, i) => {
      expect(derived.get([slice], 'copied', make(`new ${i}`)).name).toBe(`new ${i}`);
    });
  });

  it('go with each of their buffers', () => {
    const { derived, released, make } = cache(100);
    const [weight, scale] = [buffer(1), buffer(2)];
    derived.get([weight, scale], 'packed', make('both'));
    derived.get([weight], 'copied', make('copy'));
    derived.forget(weight.contents);
    expect(released).toEqual(['both', 'copy']);
    derived.forget(scale.contents);
    derived.forget(weight.contents);
    expect(released).toEqual(['both', 'copy']);
  });

  it('keep a budget when told to settle, the longest unused going first', () => {
    const { derived, released, make } = cache(25);
    const sources = [1, 2, 3].map((id) => buffer(id));
    for (const source of sources) derived.get([source], 'copied', make(`${source.id}`));
    expect(released).toEqual([]);
    derived.get([sources[0]], 'copied', make('again'));
    derived.settle();
    expect(released).toEqual(['2']);
    derived.clear();
    expect(released).toEqual(['2', '3', '1']);
  });
});
