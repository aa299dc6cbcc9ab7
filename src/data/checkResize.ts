import { UserError } from '../cli/errors.ts';
import { resizedSide } from './dataset.ts';

/** Finds, before a run begins, a factor that is too small. @throws UserError that names the first image it leaves no pixel of */
export function checkResize(images: readonly { path: string; width: number; height: number }[], resize: number): void {
  for (const { path, width, height } of images) {
    if (resizedSide(Math.min(width, height), resize) < 1) {
      throw new UserError(`A resize factor of ${resize} leaves no pixel of ${path} (${width} × ${height}).`);
    }
  }
}
