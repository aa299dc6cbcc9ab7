/** Pixel indices of one segment of an image. */
export type Segment = Set<number>;

export interface ScoredSegment {
  pixels: Segment;
  score: number;
}

/**
 * The level that splits grey values best into two classes: Otsu's criterion, the largest variance between the classes
 * (Otsu, "A threshold selection method from gray-level histograms", 1979). Values ≤ the level are the lower class.
 *
 * @param grey values 0 … 255, rounded for the histogram
 */
export function otsuLevel(grey: ArrayLike<number>): number {
  const histogram = new Float64Array(256);
  for (let i = 0; i < grey.length; i++) histogram[Math.round(grey[i])]++;
  let best = 0;
  let bestVariance = -1;
  for (let level = 0; level < 255; level++) {
    let [below, sumBelow, above, sumAbove] = [0, 0, 0, 0];
    for (let value = 0; value < 256; value++) {
      if (value <= level) {
        below += histogram[value];
        sumBelow += value * histogram[value];
      } else {
        above += histogram[value];
        sumAbove += value * histogram[value];
      }
    }
    if (below === 0 || above === 0) continue;
    const variance = below * above * (sumBelow / below - sumAbove / above) ** 2;
    if (variance > bestVariance) {
      best = level;
      bestVariance = variance;
    }
  }
  return best;
}

/** The 8-connected components of a binary image with at least `smallest` pixels. */
export function components(foreground: boolean[], width: number, smallest: number): number[][] {
  const seen = new Uint8Array(foreground.length);
  const height = foreground.length / width;
  const found: number[][] = [];
  for (let start = 0; start < foreground.length; start++) {
    if (!foreground[start] || seen[start] !== 0) continue;
    const component = [start];
    seen[start] = 1;
    for (let at = 0; at < component.length; at++) {
      const x = component[at] % width;
      const y = Math.floor(component[at] / width);
      for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny++) {
        for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx++) {
          const next = ny * width + nx;
          if (!foreground[next] || seen[next] !== 0) continue;
          seen[next] = 1;
          component.push(next);
        }
      }
    }
    if (component.length >= smallest) found.push(component);
  }
  return found;
}

export interface OtsuOptions {
  /** Take the pixels above the level as cells, or those not above. */
  bright: boolean;
  /** What ranks the components: their area, or how far their mean grey lies from the image's. */
  score: 'area' | 'contrast';
  /** Fill the holes of each component (pixels that the rest of the image cannot reach). */
  fill: boolean;
}

/** Otsu's threshold and connected components of at least 20 pixels: what anybody would try before a network. */
export function otsuSegments(grey: Float64Array, width: number, options: OtsuOptions): ScoredSegment[] {
  const level = otsuLevel(grey);
  const foreground = Array.from(grey, (value) => Math.round(value) > level === options.bright);
  const mean = grey.reduce((sum, value) => sum + value, 0) / grey.length;
  return components(foreground, width, 20).map((component) => {
    const pixels = new Set(options.fill ? filled(component, width, grey.length) : component);
    const own = component.reduce((sum, i) => sum + grey[i], 0) / component.length;
    return { pixels, score: options.score === 'area' ? pixels.size : Math.abs(own - mean) };
  });
}

/** A component and the holes in it: all that a walk from the image's border cannot reach without crossing it. */
function filled(component: number[], width: number, length: number): number[] {
  const wall = new Set(component);
  const height = length / width;
  const reached = new Uint8Array(length);
  const queue: number[] = [];
  const reach = (x: number, y: number) => {
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const i = y * width + x;
    if (reached[i] !== 0 || wall.has(i)) return;
    reached[i] = 1;
    queue.push(i);
  };
  for (let x = 0; x < width; x++) {
    reach(x, 0);
    reach(x, height - 1);
  }
  for (let y = 0; y < height; y++) {
    reach(0, y);
    reach(width - 1, y);
  }
  for (let at = 0; at < queue.length; at++) {
    const x = queue[at] % width;
    const y = Math.floor(queue[at] / width);
    reach(x - 1, y);
    reach(x + 1, y);
    reach(x, y - 1);
    reach(x, y + 1);
  }
  return Array.from({ length }, (_, i) => i).filter((i) => reached[i] === 0);
}

/**
 * Average precision at IoU ≥ .5 over all images, without regard to class: segments of all images by falling score, each takes
 * the free truth it overlaps best; area under precision (made monotonic) over recall.
 */
export function segmentAP50(images: { segments: ScoredSegment[]; truth: Segment[] }[]): number {
  const ranked = images.flatMap((image) => image.segments.map((segment) => ({ segment, truth: image.truth })));
  ranked.sort((a, b) => b.segment.score - a.segment.score);
  const taken = new Set<Segment>();
  const hits = ranked.map(({ segment, truth }) => {
    let best: Segment | undefined;
    let bestIou = 0.5;
    for (const cell of truth) {
      if (taken.has(cell)) continue;
      let shared = 0;
      for (const pixel of cell) if (segment.pixels.has(pixel)) shared++;
      const iou = shared / (cell.size + segment.pixels.size - shared);
      if (iou >= bestIou) {
        best = cell;
        bestIou = iou;
      }
    }
    if (best !== undefined) taken.add(best);
    return best !== undefined;
  });
  const total = images.reduce((sum, image) => sum + image.truth.length, 0);
  let found = 0;
  const precisions = hits.map((hit, i) => {
    if (hit) found++;
    return found / (i + 1);
  });
  // Every hit raises recall by one truth; its precision is the best from there on.
  let area = 0;
  for (let i = hits.length - 1, best = 0; i >= 0; i--) {
    best = Math.max(best, precisions[i]);
    if (hits[i]) area += best / total;
  }
  return area;
}
