import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';

describe('Random', () => {
  it('steps as xoshiro128**', () => {
    const random = Random.restore([1, 2, 3, 4]);
    // The first outputs of the authors' C code from the state 1, 2, 3, 4.
    expect([random.uint32(), random.uint32(), random.uint32(), random.uint32()]).toEqual([11520, 0, 5927040, 70819200]);
  });

  it('gives the same numbers for a seed, others for another, and goes on from a saved state', () => {
    const draw = (random: Random): number[] => [
      random.next(),
      random.normal(),
      random.int(1000),
      ...random.permutation(5),
    ];
    expect(draw(new Random(7))).toEqual(draw(new Random(7)));
    expect(draw(new Random(7))).not.toEqual(draw(new Random(8)));
    expect(draw(new Random(7))).not.toEqual(draw(new Random(7 + 2 ** 32)));
    expect(draw(new Random(-1))).not.toEqual(draw(new Random(1)));
    const random = new Random(2021);
    draw(random);
    const state = JSON.parse(JSON.stringify(random.save()));
    expect(draw(Random.restore(state))).toEqual(draw(random));
  });

  it('is uniform and normal', () => {
    const random = new Random(1);
    const count = 20_000;
    const uniform = Array.from({ length: count }, () => random.next());
    const normal = Array.from({ length: count }, () => random.normal());
    const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
    // Five standard errors.
    expect(Math.abs(mean(uniform) - 0.5)).toBeLessThan(5 * Math.sqrt(1 / 12 / count));
    expect(Math.abs(mean(normal))).toBeLessThan(5 / Math.sqrt(count));
    expect(Math.abs(mean(normal.map((v) => v * v)) - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
  });

  it('permutes without preference', () => {
    const random = new Random(3);
    const seen = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const key = random.permutation(3).join('');
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    expect([...seen.keys()].sort()).toEqual(['012', '021', '102', '120', '201', '210']);
    for (const count of seen.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
    expect(random.permutation(0).length).toBe(0);
  });

  it('refuses what makes no sense', () => {
    expect(() => new Random(0.5)).toThrow(RangeError);
    expect(() => new Random(1).int(0)).toThrow(RangeError);
  });
});
