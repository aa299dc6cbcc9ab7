import { SingleBar } from 'cli-progress';

/** Shows how far a long operation is: a live bar on a terminal, a line now and then elsewhere. Writes to stderr. */
export interface Progress {
  /** `detail` is short: the losses of the step, a file's name. */
  update(done: number, detail?: string): void;
  stop(): void;
}

/** Seconds between two lines where there is no terminal. */
const LINE_EVERY = 15;

function seconds(value: number): string {
  const whole = Math.max(0, Math.round(value));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** The operations under way, the innermost last. */
const underWay: { done: number; update: Progress['update'] }[] = [];

/** Shows a detail beside the innermost operation under way, until its next own; nothing where there is none. */
export function noteProgress(detail: string): void {
  const inner = underWay.at(-1);
  inner?.update(inner.done, detail);
}

export function startProgress(label: string, total: number, first = 0): Progress {
  const shown = showProgress(label, total, first);
  const operation = { done: first, update: shown.update };
  underWay.push(operation);
  return {
    update(done, detail) {
      operation.done = done;
      shown.update(done, detail);
    },
    stop() {
      const at = underWay.indexOf(operation);
      if (at >= 0) underWay.splice(at, 1);
      shown.stop();
    },
  };
}

function showProgress(label: string, total: number, first: number): Progress {
  const started = Date.now();
  const remaining = (done: number): string =>
    done > first ? seconds(((Date.now() - started) / 1000 / (done - first)) * (total - done)) : '?';
  if (process.stderr.isTTY) {
    const bar = new SingleBar({
      format: `${label} {bar} {value}/{total} · {left} left · {detail}`,
      barsize: 24,
      hideCursor: true,
      stream: process.stderr,
    });
    bar.start(total, first, { left: '?', detail: '' });
    return {
      update: (done, detail = '') => bar.update(done, { left: remaining(done), detail }),
      stop: () => bar.stop(),
    };
  }
  let last = started;
  return {
    update(done, detail = '') {
      if (Date.now() - last < LINE_EVERY * 1000) return;
      last = Date.now();
      process.stderr.write(`${label} ${done}/${total}, ${remaining(done)} left${detail ? `: ${detail}` : ''}\n`);
    },
    stop() {},
  };
}
