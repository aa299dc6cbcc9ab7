import { type MaskPolygon, maskPolygons, type Ring } from '../../eval/contours.ts';
import { classColour } from '../../eval/overlay.ts';
import type { ImagePrediction } from '../prediction.ts';

type Position = [x: number, y: number];
type PolygonCoordinates = Position[][];

/** A closed ring: GeoJSON repeats the first position at the end. */
function closed(ring: Ring): Position[] {
  const positions: Position[] = [];
  for (let i = 0; i < ring.length; i += 2) positions.push([ring[i], ring[i + 1]]);
  return [...positions, positions[0]];
}

const coordinates = ({ exterior, holes }: MaskPolygon): PolygonCoordinates => [exterior, ...holes].map(closed);

/**
 * An image's cells as a GeoJSON FeatureCollection (RFC 7946) that QuPath opens as detections: a Polygon each, or a MultiPolygon for
 * a cell in several parts, along the edges of its pixels; x and y in pixels, y down. Class and colour are QuPath's
 * `classification`, the score is a measurement.
 *
 * @param classes names of the labels 1 …
 * @throws Error for cells without masks
 */
export function geojson({ cells }: ImagePrediction, classes: readonly string[]): string {
  const features = cells.map(({ label, score, mask }) => {
    if (mask === undefined) throw new Error('geojson: a box-only model has no masks');
    const polygons = maskPolygons(mask).map(coordinates);
    return {
      type: 'Feature',
      geometry:
        polygons.length === 1
          ? { type: 'Polygon', coordinates: polygons[0] }
          : { type: 'MultiPolygon', coordinates: polygons },
      properties: {
        objectType: 'detection',
        classification: { name: classes[label - 1], color: [...classColour(label)] },
        measurements: { score },
      },
    };
  });
  const lines = features.map((feature) => JSON.stringify(feature)).join(',\n');
  return `{"type":"FeatureCollection","features":[${lines && `\n${lines}\n`}]}\n`;
}
