// The competition's score by brute force from boolean pixel lists, written from its definition, float64 throughout.

/** IoU of two full-size masks by visiting every pixel. */
export function pixelIou(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let intersection = 0;
  let union = 0;
  for (let i = 0; i < a.length; i++) {
    const inA = a[i] !== 0;
    const inB = b[i] !== 0;
    if (inA && inB) intersection++;
    if (inA || inB) union++;
  }
  return union === 0 ? 0 : intersection / union;
}

/** Mean over the thresholds of TP / (TP + FP + FN), counting pair by pair in percent-integer thresholds. */
export function referenceImageScore(truth: ArrayLike<number>[], predicted: ArrayLike<number>[]): number {
  let total = 0;
  for (let percent = 50; percent <= 95; percent += 5) {
    const matches = (p: ArrayLike<number>, t: ArrayLike<number>) => pixelIou(p, t) > percent / 100;
    const tp = truth.filter((t) => predicted.some((p) => matches(p, t))).length;
    const fn = truth.filter((t) => predicted.every((p) => !matches(p, t))).length;
    const fp = predicted.filter((p) => truth.every((t) => !matches(p, t))).length;
    total += tp + fp + fn === 0 ? 1 : tp / (tp + fp + fn);
  }
  return total / 10;
}
