import Table from 'cli-table3';
import type { DataSummary } from './eda.ts';
import {
  cellSizeTables,
  cellsPerImageTable,
  classTable,
  type EdaTable,
  headTable,
  imageSizeTable,
  limitTable,
  quantileTable,
} from './edaTables.ts';
import { formatCount } from './format.ts';

function tableText({ title, note, head, rows }: EdaTable): string {
  const table = new Table({
    head,
    style: { head: [], border: [], compact: true },
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
  });
  table.push(...rows);
  return `${title}\n${note}\n${table.toString()}\n`;
}

/** The whole exploration as plain text. */
export function edaText(summary: DataSummary): string {
  const { dir, images, cells, imagesWithoutCells, classes } = summary;
  const empty = imagesWithoutCells > 0 ? `, ${formatCount(imagesWithoutCells)} of the images without any` : '';
  const tables = [
    classTable(summary),
    cellsPerImageTable(summary),
    ...classes.flatMap((item) => (item.images === 0 ? [] : [quantileTable(item), headTable(summary, item.name)])),
    limitTable(summary),
    ...cellSizeTables(summary),
    imageSizeTable(summary),
  ];
  const counted = (count: number, noun: string): string => `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
  const first = `${dir}: ${counted(images, 'image')}, ${counted(cells, 'cell')}${empty}\n`;
  return [first, ...tables.map(tableText)].join('\n');
}
