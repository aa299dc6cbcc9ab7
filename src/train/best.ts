/** How one epoch did on the validation images. */
export interface EpochScore {
  epoch: number;
  /** Competition score; 0 for a box-only model. */
  iouMap: number;
  maskAP50: number;
  validationLoss: number;
}

/** True if `a` beats `b`: by competition score, then mask AP50, then validation loss; the earlier of equals stays. */
export function isBetter(a: EpochScore, b: EpochScore | null): boolean {
  if (!b) return true;
  if (a.iouMap !== b.iouMap) return a.iouMap > b.iouMap;
  if (a.maskAP50 !== b.maskAP50) return a.maskAP50 > b.maskAP50;
  return a.validationLoss < b.validationLoss;
}
