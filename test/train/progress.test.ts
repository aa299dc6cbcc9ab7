import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { noteProgress, startProgress } from '../../src/train/progress.ts';

describe('startProgress', () => {
  let written: string;
  const terminal = process.stderr.isTTY;

  beforeEach(() => {
    vi.useFakeTimers();
    written = '';
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      written += String(text);
      return true;
    });
  });
  afterEach(() => {
    process.stderr.isTTY = terminal;
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  it('tells, where there is no terminal, now and then how far it is and how long it takes', () => {
    process.stderr.isTTY = false;
    const progress = startProgress('Epoch 1/2', 100);
    vi.advanceTimersByTime(14_000);
    progress.update(10, 'loss 1.5');
    expect(written).toBe('');
    vi.advanceTimersByTime(6_000);
    progress.update(20, 'loss 1.2');
    // 20 of 100 in 20 s: 80 s are left.
    expect(written).toBe('Epoch 1/2 20/100, 1 min 20 s left: loss 1.2\n');
    progress.update(21);
    progress.stop();
    expect(written.split('\n')).toHaveLength(2);
  });

  it('counts the time of its own steps only, where an epoch goes on', () => {
    process.stderr.isTTY = false;
    const progress = startProgress('Epoch 1/2', 100, 60);
    vi.advanceTimersByTime(20_000);
    progress.update(80);
    expect(written).toBe('Epoch 1/2 80/100, 20 s left\n');
  });

  it('draws a bar on a terminal', () => {
    process.stderr.isTTY = true;
    const clear = ['clearLine', 'cursorTo', 'moveCursor'] as const;
    for (const name of clear) process.stderr[name] ??= () => true;
    const progress = startProgress('Epoch 1/2', 4);
    vi.advanceTimersByTime(2_000);
    progress.update(2, 'loss 0.75 = mask 0.75');
    vi.advanceTimersByTime(2_000);
    progress.stop();
    expect(written).toContain('Epoch 1/2');
    expect(written).toContain('2/4 · 2 s left · loss 0.75 = mask 0.75');
  });

  it('shows a note beside the innermost operation under way', () => {
    process.stderr.isTTY = false;
    noteProgress('nobody hears this');
    const outer = startProgress('Epoch 1/2', 10);
    outer.update(3);
    const inner = startProgress('Validation', 5);
    vi.advanceTimersByTime(20_000);
    noteProgress('compiling kernels, 7 so far');
    inner.stop();
    inner.stop();
    noteProgress('compiling kernels, 8 so far');
    outer.stop();
    noteProgress('nobody hears this');
    expect(written).toBe(
      'Validation 0/5, ? left: compiling kernels, 7 so far\nEpoch 1/2 3/10, 47 s left: compiling kernels, 8 so far\n',
    );
  });
});
