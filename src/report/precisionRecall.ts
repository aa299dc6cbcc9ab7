import { COCO_RECALLS, type CocoEvaluation, precisionOverRecall } from '../eval/cocoAccumulator.ts';
import { COCO_IOU_THRESHOLDS } from '../eval/cocoMatching.ts';
import { lineChart } from './chart.ts';

/** IoU thresholds that are drawn, by their position in `COCO_IOU_THRESHOLDS`: .50 and .75. */
const DRAWN = [0, 5];
const [WIDTH, HEIGHT] = [520, 340];
/** Lines that a panel can name; of more classes the mean is drawn alone. */
const MOST_LINES = 6;

/**
 * Precision over recall, as COCO reads them (the best precision at this recall or beyond, at 101 recalls): a line for each class
 * that has truths, with its average precision, in a panel for IoU .50 and one for IoU .75; masks above boxes. Of more than six such
 * classes the mean is drawn alone.
 *
 * @param classes names of the labels 1 …
 * @returns an SVG document
 */
export function precisionRecallPicture(
  { segm, bbox }: { segm: CocoEvaluation | null; bbox: CocoEvaluation },
  classes: readonly string[],
): string {
  const rows = [...(segm === null ? [] : [{ what: 'Masks', evaluation: segm }]), { what: 'Boxes', evaluation: bbox }];
  const panels = rows.flatMap(({ what, evaluation }, row) =>
    DRAWN.map((threshold, column) => {
      const title = `${what}, IoU ≥ ${COCO_IOU_THRESHOLDS[threshold].toFixed(2)}`;
      return nested(panel(title, evaluation, threshold, classes), column * WIDTH, row * HEIGHT, `${row}${column}`);
    }),
  );
  const [width, height] = [DRAWN.length * WIDTH, rows.length * HEIGHT];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">\n${panels.join('\n')}\n</svg>\n`;
}

function panel(title: string, evaluation: CocoEvaluation, threshold: number, classes: readonly string[]): string {
  let lines = classes.flatMap((name, k) => {
    const precision = precisionOverRecall(evaluation, k, threshold);
    return precision === undefined ? [] : [{ name, precision }];
  });
  if (lines.length > MOST_LINES) {
    const precision = COCO_RECALLS.map((_, i) => mean(lines.map((line) => line.precision[i])));
    lines = [{ name: `mean of ${lines.length} classes`, precision }];
  }
  const series = lines.map(({ name, precision }) => ({
    name: `${name}, AP ${mean(precision).toFixed(3)}`,
    points: precision.map((value, i): readonly [number, number] => [COCO_RECALLS[i], value]),
  }));
  return lineChart({
    // A single line has no legend.
    title: series.length === 1 ? `${title}: ${series[0].name}` : title,
    xLabel: 'recall',
    yLabel: 'precision',
    series,
    width: WIDTH,
    height: HEIGHT,
    yMin: 0,
    yMax: 1,
    step: true,
  });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** A chart at its place inside another, its ids made unlike those of the other charts. */
function nested(svg: string, x: number, y: number, id: string): string {
  return svg
    .replace('<svg ', `<svg x="${x}" y="${y}" `)
    .replaceAll(/\bid="([^"]+)"/g, `id="$1-${id}"`)
    .replaceAll(/url\(#([^)]+)\)/g, `url(#$1-${id})`)
    .replaceAll(/href="#([^"]+)"/g, `href="#$1-${id}"`);
}
