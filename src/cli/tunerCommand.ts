import Table from 'cli-table3';
import { Command } from 'commander';
import { cachedKernels, clearTuned, keepTuned, tunedFile, tunerFolder } from '../tuner/cache.ts';
import { adapterKey, type TunedKernels } from '../tuner/tunedChoice.ts';
import { hasTable, measureKernels } from './kernels.ts';
import { adapterOption, say, withDevice } from './session.ts';

interface Flags {
  adapter: string;
  clear?: boolean;
  force?: boolean;
}

export function tunerCommand(): Command {
  return new Command('tuner')
    .description('Show which kernels were measured fastest on an adapter; measure them where nobody has.')
    .option('--clear', 'forget what was measured, on all adapters')
    .option('--force', 'measure now, whatever is known of the adapter')
    .addOption(adapterOption())
    .action(async ({ adapter, clear, force = false }: Flags) => {
      if (clear) {
        const count = clearTuned();
        say(`Forgot the measured kernels of ${count === 1 ? 'one adapter' : `${count} adapters`} (${tunerFolder()}).`);
        if (!force) return;
      }
      await withDevice(
        adapter,
        async (device) => {
          const { name } = device.gpu.opened.info;
          const table = hasTable(device);
          const key = adapterKey(device.gpu.opened);
          const known = table || force ? null : cachedKernels(device, key);
          if (typeof known === 'string') say(known);
          if (table && !force) {
            console.log(`${name} computes by the built-in table; --force measures beside it.`);
            return;
          }
          const measured = known === null || typeof known === 'string' ? await measureKernels(device, say) : known;
          console.log(trialTable(measured));
          if (table) {
            console.log(`Measured ${when(measured)}, not kept: ${name} computes by the built-in table.`);
            return;
          }
          // Two that measure at once keep one choice; what was asked for anew replaces the old.
          if (measured !== known) keepTuned(measured, { replace: force });
          console.log(`Measured ${when(measured)}, kept in ${tunedFile(key)}.`);
        },
        { tuner: false },
      );
    });
}

function when({ measured, seconds }: TunedKernels): string {
  return `${measured.slice(0, 16).replace('T', ' ')} UTC in ${seconds.toFixed(1)} s`;
}

/** What was tried for each class of work: times, how often as fast as the built-in kernel, and what became of it. */
export function trialTable({ classes }: TunedKernels): string {
  const table = new Table({
    head: ['work', 'kernel', 'ms', 'speed', ''],
    style: { head: [], border: [] },
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
    colAligns: ['left', 'left', 'right', 'right', 'left'],
    colWidths: [null, null, null, null, 48],
    wordWrap: true,
  });
  for (const { name, sample, trials } of classes) {
    const own = trials.find(({ builtIn }) => builtIn)?.ms ?? null;
    const rows = [...trials].sort((a, b) => (a.ms ?? Number.POSITIVE_INFINITY) - (b.ms ?? Number.POSITIVE_INFINITY));
    table.push([name, sample, '', '', trials.some(({ chosen }) => chosen) ? '' : 'no time: built-in']);
    for (const { kernel, builtIn, chosen, ms, dropped } of rows) {
      const notes = [chosen ? 'chosen' : '', builtIn ? 'built-in' : '', dropped === null ? '' : `dropped: ${dropped}`];
      const speed = ms === null || own === null ? '' : `×${(own / ms).toFixed(2)}`;
      const shown = ms === null ? '' : ms.toPrecision(3);
      table.push(['', kernel, shown, speed, notes.filter((note) => note !== '').join(', ')]);
    }
  }
  return table.toString();
}
