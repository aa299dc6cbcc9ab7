import { loadImage } from '../data/dataset.ts';
import type { ScaledImage } from '../data/scaledImage.ts';
import type { Detections } from '../data/types.ts';
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
  const batches = Array.from({ length: Math.ceil(files.length / batchSize) }, (_, i) =>
    files.slice(i * batchSize, (i + 1) * batchSize),
  );
  const load = async ({ id, path }: { id: string; path: string }): Promise<ScaledImage> => loadImage(path, resize, id);
  for await (const { file, image, detections } of predictBatches(model, batches, { load, ahead: 0 })) {
    yield { id: file.id, path: file.path, width: image.fileWidth, height: image.fileHeight, detections };
  }
}

/**
 * Detections of images that come in batches, image by image; boxes and masks refer to the pixels of the files.
 *
 * @param load reads an image at the network's scale; an image that cannot be read ends the iteration when its turn has come
 * @param ahead batches that are loaded while the model works on another; so many and one more are held in memory
 */
export async function* predictBatches<File>(
  model: MaskRCNN,
  batches: readonly (readonly File[])[],
  { load, ahead }: { load: (file: File) => Promise<ScaledImage>; ahead: number },
): AsyncGenerator<{ file: File; image: ScaledImage; detections: Detections }, void, undefined> {
  const pending: Promise<ScaledImage[]>[] = [];
  let next = 0;
  for (const [at, batch] of batches.entries()) {
    for (; next <= Math.min(at + ahead, batches.length - 1); next++) {
      const loading = Promise.all(batches[next].map(load));
      // Its failure is told when its turn has come; until then Node must not take it for one that nobody handles.
      loading.catch(() => undefined);
      pending.push(loading);
    }
    const images = (await pending.shift()) as ScaledImage[];
    const found = await model.predict(images, {
      outputSizes: images.map(({ fileHeight, fileWidth }) => [fileHeight, fileWidth] as const),
    });
    for (const [i, file] of batch.entries()) yield { file, image: images[i], detections: found[i] };
  }
}
