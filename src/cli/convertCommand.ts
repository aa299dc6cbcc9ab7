import { Command, Option } from 'commander';
import { convertDataset, type DataFormat, dataFormats } from '../data/formats/convert.ts';
import { openDatasetShown } from '../train/openData.ts';
import { type Progress, startProgress } from '../train/progress.ts';
import { interruptible, say } from './session.ts';

interface Flags {
  data: string;
  format: DataFormat;
  out: string;
}

export function convertCommand(): Command {
  return new Command('convert')
    .description("Write a data set in another format: the competition's, COCO's or label images; images become PNG.")
    .requiredOption('--data <dir>', "folder with the competition's train.csv, a COCO file, or label images")
    .addOption(new Option('--format <name>', 'format to write').choices(dataFormats).makeOptionMandatory())
    .requiredOption('--out <dir>', 'folder to make')
    .action(async ({ data, format, out }: Flags) => {
      const dataset = openDatasetShown(data);
      const interrupt = interruptible();
      let bar: Progress | undefined;
      const progress = (done: number, total: number): void => {
        bar ??= startProgress('Converting', total);
        bar.update(done);
      };
      const converting = convertDataset({ dataset, format, out, progress, stopping: interrupt.stopping });
      const written = await converting.finally(() => {
        bar?.stop();
        interrupt.done();
      });
      if (written === null) {
        say('Stopped; nothing was written.');
        process.exitCode = 130;
        return;
      }
      for (const line of written.losses) say(line);
      say(`${dataset.images.length} images and ${written.cells} cells of ${dataset.classes.join(', ')}: ${out}`);
    });
}
