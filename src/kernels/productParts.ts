import { inParts, passesLimit, section } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { ImageExtent, Target, Window } from './tileProduct.ts';

/*
 * Products whose image or positions pass what the adapter binds at once, cut into runs of images (rows of a matrix), or, where one image
 * alone is too large, into runs of its lines: a part then reads the lines of the image that its windows meet, and its padding moves with them.
 */

/** A product, or a part of one. */
export interface ProductPart {
  /** The image, [images, height, width, channels]. */
  a: Tensor;
  /** What has a row for each position: the output of a row product, B of a column product. */
  positions: Tensor;
  /** Like `positions`. */
  residual?: Tensor;
  image: ImageExtent;
  window: Window;
  /** Where positions are spread over more rows. */
  target?: Target;
}

export function inProductParts(
  product: ProductPart,
  { operator, columns, writes }: { operator: string; columns: number; writes: boolean },
  body: (part: ProductPart, first: boolean) => void,
): void {
  const { a, positions, residual, image, window } = product;
  const { gpu } = a.device;
  if (!passesLimit(gpu, [a, positions, residual])) {
    body(product, true);
    return;
  }
  const matrix = image.images === 1 && image.height === 1 && window.outHeight === 1 && window.outWidth === image.width;
  const units = matrix ? image.width : image.images;
  const written = writes ? ['positions'] : [];
  if (matrix || Math.max(a.bytes, positions.bytes) / units <= gpu.bindingLimit) {
    inParts({ a, positions, residual }, { operator, units, writes: written }, (parts, { first, count }) =>
      body(
        matrix
          ? { ...parts, image: { ...image, width: count }, window: { ...window, outWidth: count } }
          : { ...product, ...parts, image: { ...image, images: count } },
        first === 0,
      ),
    );
    return;
  }
  inLines(product, columns, writes, body);
}

function inLines(
  { a, positions, residual, image, window, target }: ProductPart,
  columns: number,
  writes: boolean,
  body: (part: ProductPart, first: boolean) => void,
): void {
  const { gpu } = a.device;
  const { images, height, width, channels } = image;
  const place = target ?? { height: window.outHeight, width: window.outWidth, step: 1, top: 0, left: 0 };
  const line = width * channels;
  const placeLine = place.width * columns;
  const reach = Math.max(window.tapsDown - 1, 0) * window.dilation + 1;
  const bytesOf = (elements: number): number => (elements * a.bytes) / a.size;
  const fitting = Math.min(
    Math.floor((gpu.bindingLimit / bytesOf(line) - reach) / window.stride) + 1,
    Math.floor(gpu.bindingLimit / bytesOf(placeLine) / place.step),
  );
  // Not even one line: the dispatch refuses it by name.
  const lines = Math.max(fitting, 1);
  const clamp = (value: number): number => Math.min(Math.max(value, 0), height - 1);
  for (let index = 0; index < images; index++) {
    for (let first = 0; first < window.outHeight; first += lines) {
      const count = Math.min(lines, window.outHeight - first);
      const top = clamp(first * window.stride - window.padTop);
      const bottom = Math.max(clamp((first + count - 1) * window.stride - window.padTop + reach - 1), top);
      const rows = bottom - top + 1;
      const start = first * place.step;
      const placeRows = Math.min((first + count) * place.step, place.height) - start;
      const at = (index * place.height + start) * placeLine;
      const shape = [1, placeRows, place.width, columns];
      const parts = {
        a: section(a, (index * height + top) * line, [1, rows, width, channels], false),
        positions: section(positions, at, shape, writes),
        residual: residual && section(residual, at, shape, false),
      };
      gpu.countPart();
      body(
        {
          a: parts.a.tensor,
          positions: parts.positions.tensor,
          residual: parts.residual?.tensor,
          image: { ...image, images: 1, height: rows },
          window: { ...window, outHeight: count, padTop: window.padTop - first * window.stride + top },
          target: target && { ...target, height: placeRows },
        },
        index === 0 && first === 0,
      );
      for (const part of Object.values(parts)) part?.finish();
    }
  }
}
