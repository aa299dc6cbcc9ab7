// The notebook's two measures over lists of boxes, from what their sources say, float64, each written another way than the library.
import { interpolatedArea, referenceBoxIou } from './averagePrecision.ts';

export interface RefBox {
  image: number;
  label: number;
  /** xmin, ymin, xmax, ymax. */
  box: number[];
  score: number;
}

/** Position of the largest value, the first of equals; -1 in an empty list. */
function bestOf(values: number[]): number {
  return values.indexOf(Math.max(...values));
}

/**
 * keras-retinanet's average precision of one class: a detection is a hit if the truth it overlaps best is overlapped enough and is
 * not the best of an earlier hit of the list. Images without any truth (of whatever class) are not looked at.
 */
export function referenceListOrderAP(truths: RefBox[], detections: RefBox[], label: number, threshold: number): number {
  const named = new Set(truths.map(({ image }) => image));
  const own = truths.filter((truth) => truth.label === label);
  const claimed: RefBox[] = [];
  const judged = detections
    .filter((detection) => detection.label === label && named.has(detection.image))
    // Images in the order in which the truths name them, then the order of the list.
    .map((detection, index) => ({ detection, index, image: [...named].indexOf(detection.image) }))
    .sort((a, b) => a.image - b.image || a.index - b.index)
    .map(({ detection }) => {
      const ofImage = own.filter((truth) => truth.image === detection.image);
      const ious = ofImage.map((truth) => referenceBoxIou(detection.box, truth.box));
      const best = bestOf(ious);
      const hit = best >= 0 && ious[best] >= threshold && !claimed.includes(ofImage[best]);
      if (hit) claimed.push(ofImage[best]);
      return { score: detection.score, hit };
    });
  // A stable sort.
  return interpolatedArea(
    judged.sort((a, b) => b.score - a.score).map(({ hit }) => hit),
    own.length,
  );
}

/** The notebook's compute_mAP: for each threshold and class c the classes up to c together, by the trapezoid rule. */
export function referenceComputeMAP(truths: RefBox[], detections: RefBox[], numClasses: number): number[] {
  const inclusive = ([x0, y0, x1, y1]: number[]) => [x0, y0, x1 + 1, y1 + 1];
  return [...Array(9).keys()].map((i) => {
    const threshold = 0.5 + i * (0.55 - 0.5);
    let sum = 0;
    for (let c = 0; c < numClasses; c++) {
      const upTo = (items: RefBox[]) => items.filter(({ label }) => label <= c).sort((a, b) => a.label - b.label);
      const known = upTo(truths);
      const taken = new Set<RefBox>();
      const curve = [{ recall: 0, precision: 1 }];
      let hits = 0;
      upTo(detections)
        .sort((a, b) => b.score - a.score)
        .forEach((detection, rank) => {
          const ofImage = known.filter(({ image }) => image === detection.image);
          const ious = ofImage.map(({ box }) => referenceBoxIou(inclusive(detection.box), inclusive(box)));
          const best = bestOf(ious);
          if (best >= 0 && ious[best] > threshold && !taken.has(ofImage[best])) {
            taken.add(ofImage[best]);
            hits++;
          }
          curve.push({ recall: hits / (known.length + 1e-6), precision: hits / (rank + 1 + 1e-6) });
        });
      for (let k = 1; k < curve.length; k++) {
        sum += ((curve[k].recall - curve[k - 1].recall) * (curve[k].precision + curve[k - 1].precision)) / 2;
      }
    }
    return sum / numClasses;
  });
}
