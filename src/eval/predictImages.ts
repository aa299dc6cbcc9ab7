import { loadImage } from '../data/dataset.ts';
import type { Detections, LoadedImage } from '../data/types.ts';
import type { MaskRCNN } from '../model/maskRcnn.ts';

export interface Predicted {
  id: string;
  path: string;
  /** Pixels of the file; boxes and masks of `detections` refer to them. */
  width: number;
  height: number;
  detections: Detections;
}

/**
 * Detections of image files, a batch at a time: the network sees each image resized as in training, boxes and masks come back
 * at the file's own size. One batch is held in memory.
 */
export async function* predictImages(
  model: MaskRCNN,
  files: readonly { id: string; path: string }[],
  { resize, batchSize }: { resize: number; batchSize: number },
): AsyncGenerator<Predicted> {
  for (let start = 0; start < files.length; start += batchSize) {
    const batch = files.slice(start, start + batchSize);
    const images = batch.map(({ id, path }) => loadImage(path, resize, id));
    const detections = await model.predict(images as LoadedImage[], {
      outputSizes: images.map(({ fileHeight, fileWidth }) => [fileHeight, fileWidth] as const),
    });
    for (const [i, { id, path }] of batch.entries()) {
      yield { id, path, width: images[i].fileWidth, height: images[i].fileHeight, detections: detections[i] };
    }
  }
}
