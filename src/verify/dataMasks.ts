/** The mask and image values of a data case. */
import { UserError } from '../cli/errors.ts';
import { combineMasks } from '../data/combineMasks.ts';
import { maskBox } from '../data/dataset.ts';
import { resizeImage, resizeMask } from '../data/resize.ts';
import { removeOverlaps, rleDecode, rleEncode } from '../data/rle.ts';
import type { DataGolden } from './golden.ts';
import { compareExactly, compareTensors, failedRow, type HostTensor, type Row } from './rows.ts';

/** Of `combine.out`. */
const COMBINE_THRESHOLD = 0.605;
/** Rows and columns of the image that `resize.image.out_up` enlarges. */
const CORNER = [64, 80] as const;
/** Grey levels that OpenCV's fixed-point arithmetic may differ from another build's. */
const IMAGE_TOLERANCE = 1;

/** Decoding and encoding of run lengths. */
export function rleRows({ values: { rle, rleSmall } }: DataGolden): Row[] {
  const stage = 'run lengths';
  const [height, width] = rle.shape;
  const large = rle.masks.flatMap(({ rle: text, area }, i) => {
    const name = `rle.masks.${i}`;
    const mask = rleDecode(text, width, height, name);
    const covered = mask.reduce((sum, value) => sum + value, 0);
    return [
      compareExactly([rleEncode(mask)], [text], { name: `${name}.rle`, stage }),
      compareExactly([covered], [area], { name: `${name}.area`, stage }),
    ];
  });
  const small = rleSmall.flatMap(({ mask: rows, rle: text }, i) => {
    const name = `rleSmall.${i}`;
    const expected = rows.flat();
    if (expected.length !== rows.length * rows[0].length)
      throw new UserError(`${name}.mask: expected rows of one length.`);
    return [
      compareExactly(rleDecode(text, rows[0].length, rows.length, name), expected, { name: `${name}.mask`, stage }),
      compareExactly([rleEncode(Uint8Array.from(expected))], [text], { name: `${name}.rle`, stage }),
    ];
  });
  return [...large, ...small];
}

/** Removal of overlaps in order. */
export function overlapRows({ values }: DataGolden): Row[] {
  const { shape, in: texts, out } = values.removeOverlaps;
  const masks = texts.map((text, i) => rleDecode(text, shape[1], shape[0], `removeOverlaps.in.${i}`));
  const disjoint = removeOverlaps(masks).map(rleEncode);
  const stage = 'overlap removal';
  if (disjoint.length !== out.length) {
    const note = `${disjoint.length} masks, expected ${out.length}`;
    return [failedRow({ name: 'removeOverlaps.out', stage, tolerance: 0 }, note)];
  }
  return disjoint.map((text, i) => compareExactly([text], [out[i]], { name: `removeOverlaps.out.${i}`, stage }));
}

/** The combined label image. */
export function combineRows(golden: DataGolden): Row[] {
  const { shape, data } = tensorOf(golden, 'combine.in', 3);
  const [count, height, width] = shape;
  const masks = Array.from({ length: count }, (_, i) =>
    Float32Array.from(data.subarray(i * height * width, (i + 1) * height * width), (value) => value / 255),
  );
  const labels = { shape: [height, width], data: combineMasks(masks, COMBINE_THRESHOLD) };
  const comparison = { name: 'combine.out', stage: 'combined masks', tolerance: 0, scale: 1 };
  return [compareTensors(labels, tensorOf(golden, 'combine.out', 2), comparison)];
}

/** OpenCV's resize of images and masks, and the boxes of the resized masks. */
export function resizeRows(golden: DataGolden): Row[] {
  const { values } = golden;
  const image = tensorOf(golden, 'resize.image.in', 3);
  const whole = { shape: image.shape, data: Uint8Array.from(image.data) };
  const rows = [
    imageRow(golden, 'resize.image.out', whole),
    imageRow(golden, 'resize.image.out_odd', whole),
    imageRow(golden, 'resize.image.out_up', cornerOf(whole)),
  ];
  const expected = tensorOf(golden, 'resize.mask.out', 3);
  const [, newHeight, newWidth] = expected.shape;
  const [height, width] = values.removeOverlaps.shape;
  const masks = values.resizeMask.in.map((text, i) =>
    resizeMask(rleDecode(text, width, height, `resizeMask.in.${i}`), width, height, newWidth, newHeight),
  );
  const joined = new Int32Array(masks.length * newHeight * newWidth);
  masks.forEach((mask, i) => {
    joined.set(mask, i * newHeight * newWidth);
  });
  const resized = { shape: [masks.length, newHeight, newWidth], data: joined };
  rows.push(compareTensors(resized, expected, { name: 'resize.mask.out', stage: 'resize', tolerance: 0, scale: 1 }));
  const stage = 'boxes of masks';
  if (masks.length !== values.boxes.length) {
    const note = `${masks.length} masks, expected ${values.boxes.length}`;
    return [...rows, failedRow({ name: 'boxes', stage, tolerance: 0 }, note)];
  }
  const boxes = masks.map((mask, i) =>
    compareExactly(maskBox(mask, newWidth, newHeight) ?? [], values.boxes[i], { name: `boxes.${i}`, stage }),
  );
  return [...rows, ...boxes];
}

interface ByteImage {
  shape: readonly number[];
  data: Uint8Array;
}

function imageRow(golden: DataGolden, name: string, { shape: [height, width], data }: ByteImage): Row {
  const expected = tensorOf(golden, name, 3);
  const [newHeight, newWidth] = expected.shape;
  const resized = Int32Array.from(resizeImage(data, width, height, newWidth, newHeight));
  const comparison = { name, stage: 'resize', tolerance: IMAGE_TOLERANCE, scale: 1 };
  return compareTensors({ shape: [newHeight, newWidth, 3], data: resized }, expected, comparison);
}

/** `image[:64, :80]` */
function cornerOf({ shape: [height, width], data }: ByteImage): ByteImage {
  const [rows, columns] = [Math.min(CORNER[0], height), Math.min(CORNER[1], width)];
  const corner = new Uint8Array(rows * columns * 3);
  for (let y = 0; y < rows; y++) {
    corner.set(data.subarray(y * width * 3, (y * width + columns) * 3), y * columns * 3);
  }
  return { shape: [rows, columns, 3], data: corner };
}

/** A tensor of whole numbers. @throws UserError where its rank differs, an image has other than three channels, or it is empty */
function tensorOf({ tensors }: DataGolden, name: string, rank: number): HostTensor {
  const tensor = tensors.get(name);
  const { shape } = tensor;
  const isImage = name.startsWith('resize.image');
  if (shape.length !== rank || shape.includes(0) || (isImage && shape[2] !== 3)) {
    const expected = isImage ? '[height, width, 3]' : `${rank} dimensions without a 0`;
    throw new UserError(`the tensor '${name}' has the shape [${shape.join(', ')}], expected ${expected}.`);
  }
  return tensor;
}
