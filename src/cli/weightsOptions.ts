import { InvalidArgumentError, Option } from 'commander';
import { presetNames } from '../model/presets.ts';
import { parseNumber } from './numbers.ts';

/** `--batch-norm-eps X`, as every command that loads weights takes it. */
export function batchNormEpsOption(): Option {
  return new Option(
    '--batch-norm-eps <x>',
    "eps of the batch norms (default: the weights' own; 0 for torchvision's published COCO_V1 files, else 1e-5)",
  ).argParser((text) => {
    const value = parseNumber(text);
    if (value < 0) throw new InvalidArgumentError('expected a number from 0.');
    return value;
  });
}

/** What a user may tell of weights that other programs wrote: `--preset`, `--classes`, `--batch-norm-eps`. */
export function foreignOptions(): Option[] {
  return [
    new Option(
      '--preset <name>',
      `for weights of other programs: anchors and sizes of this model, ${presetNames.join(' or ')} (default: torchvision's)`,
    ),
    new Option(
      '--classes <a,b,c>',
      "names of the labels 1, 2, … (default: the weights' own; COCO's where weights of other programs have 90)",
    ).argParser(parseClasses),
    batchNormEpsOption(),
  ];
}

function parseClasses(text: string): string[] {
  const classes = text.split(',').map((name) => name.trim());
  if (classes.some((name) => name === '')) throw new InvalidArgumentError('expected names with commas between them.');
  return classes;
}
