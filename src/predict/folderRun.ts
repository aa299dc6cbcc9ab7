import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { writePartsAtomic } from '../data/files.ts';
import { predictBatches } from '../eval/predictImages.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import type { MaskRCNN } from '../model/maskRcnn.ts';
import { startProgress } from '../train/progress.ts';
import {
  type FolderFormat,
  folderFiles,
  folderFormats,
  type ImageFormat,
  imageFormats,
  type OutputFormat,
} from './formats.ts';
import { batchesOf, type ImageFile } from './imageFiles.ts';
import { PredictJobs } from './jobs.ts';
import {
  entryOf,
  inspectJournal,
  JOURNAL,
  type JournalHeader,
  type JournalReader,
  type JournalState,
  JournalWriter,
  journalHeader,
  predictionOf,
  type RunFacts,
  readJournal,
  replaceHeader,
} from './journal.ts';
import { type CocoIds, cocoResults } from './outputs/cocoResults.ts';
import { submissionCsv } from './outputs/submissionCsv.ts';
import { type ImagePrediction, selectCells } from './prediction.ts';

/** A folder to predict, or a part of one, and how far it is. */
export interface FolderRun {
  /** The images of the part. */
  files: readonly ImageFile[];
  formats: readonly OutputFormat[];
  /** Folder of the run. */
  out: string;
  header: JournalHeader;
  /** What an earlier process has done of it; undefined to begin. */
  state: JournalState | undefined;
  /** Threads that load and write; 0 for none. */
  workers: number;
  cocoIds: CocoIds;
}

/** Images whose files are being written while the model goes on. */
const WRITES_BEHIND = 4;
const BATCHES_AHEAD = 2;

const imageFormatsOf = (formats: readonly OutputFormat[]): ImageFormat[] =>
  imageFormats.filter((format) => formats.includes(format));

/**
 * Looks in the run's folder for what has been done already. It writes nothing.
 *
 * @param restart forget what was done
 * @throws UserError where the folder holds another run's record
 */
export function planFolderRun(
  facts: RunFacts,
  options: Omit<FolderRun, 'state' | 'header'>,
  restart: boolean,
): FolderRun {
  const header = journalHeader(facts, imageFormatsOf(options.formats));
  const state = restart ? undefined : inspectJournal(join(options.out, JOURNAL), header, options.files);
  return { ...options, header, state };
}

/**
 * Predicts the images that are not done yet. Each image's own files are written first, then its line in the journal, so that
 * a process that ends in any way leaves a record of whole images, from which the next goes on. Held in memory are a few batches that
 * are loaded ahead, and a few images whose files are being written.
 *
 * @param openModel called when there is an image to predict; the caller disposes of the model
 * @param stopping asked after each image; true ends early
 * @returns images done of the part, now or before
 * @throws UserError for an image that cannot be read; those before it are done then
 */
export async function predictFolder(
  run: FolderRun,
  openModel: () => Promise<{ model: MaskRCNN; thresholds: Thresholds }>,
  stopping: () => boolean,
): Promise<number> {
  const jobs = new PredictJobs(run.workers);
  let journal: JournalWriter | undefined;
  try {
    const before = await continueJournal(run, jobs, stopping);
    if (before === undefined) return run.state?.done ?? 0;
    journal = before.journal;
    if (before.done === run.files.length) return before.done;
    return await predictRest(run, before.done, await openModel(), journal, jobs, stopping);
  } finally {
    journal?.close();
    await jobs.close();
  }
}

/** Begins the journal or opens it after its last whole line; undefined where the user stopped it before. */
async function continueJournal(
  run: FolderRun,
  jobs: PredictJobs,
  stopping: () => boolean,
): Promise<{ journal: JournalWriter; done: number } | undefined> {
  const path = join(run.out, JOURNAL);
  const { state, header } = run;
  if (state === undefined) {
    // What an earlier run has made of the whole folder is no longer true.
    for (const name of Object.values(folderFiles)) rmSync(join(run.out, name), { force: true });
    return { journal: JournalWriter.create(path, header), done: 0 };
  }
  let { end } = state;
  if (state.header.formats.join() !== header.formats.join()) {
    const missing = imageFormatsOf(run.formats).filter((format) => !state.header.formats.includes(format));
    if (missing.length > 0 && !(await writeMissing(run, missing, jobs, stopping))) return undefined;
    end = replaceHeader(path, header);
  }
  return { journal: JournalWriter.continue(path, end), done: state.done };
}

/** Writes the images that are done in formats that they were not written in. @returns false where the user stopped it */
async function writeMissing(
  run: FolderRun,
  formats: readonly ImageFormat[],
  jobs: PredictJobs,
  stopping: () => boolean,
): Promise<boolean> {
  const reader = readJournal(join(run.out, JOURNAL));
  const bar = startProgress(`Writing ${formats.join(', ')}`, run.state?.done ?? 0);
  const writing: Promise<void>[] = [];
  let done = 0;
  try {
    for (const { entry, where } of reader.entries) {
      const prediction = predictionOf(entry, where);
      writing.push(
        handled(
          jobs.write({ prediction, image: run.files[done].path, formats, out: run.out, classes: run.header.classes }),
        ),
      );
      if (writing.length > WRITES_BEHIND) await writing.shift();
      bar.update(++done, entry.id);
      if (stopping()) return false;
    }
    await Promise.all(writing);
    return true;
  } finally {
    bar.stop();
    reader.close();
  }
}

/** A promise that is awaited later: until then Node must not take its failure for one that nobody handles. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

async function predictRest(
  run: FolderRun,
  before: number,
  { model, thresholds }: { model: MaskRCNN; thresholds: Thresholds },
  journal: JournalWriter,
  jobs: PredictJobs,
  stopping: () => boolean,
): Promise<number> {
  const { files, header, out } = run;
  const formats = imageFormatsOf(run.formats);
  const bar = startProgress('Predicting', files.length, before);
  const writing: { prediction: ImagePrediction; fingerprint: string; written: Promise<void> }[] = [];
  let done = before;
  /** Notes the oldest images in the journal, until `behind` are left. */
  const note = async (behind: number): Promise<void> => {
    while (writing.length > behind) {
      const { prediction, fingerprint, written } = writing[0];
      await written;
      writing.shift();
      journal.append(entryOf(prediction, fingerprint));
      bar.update(++done, prediction.id);
    }
  };
  // Steps are those of the whole part, also after a stop within one: its images are computed together again.
  const batches = batchesOf(files, header.batchSize);
  let first = 0;
  let skipped = 0;
  while (skipped + batches[first].length <= before) skipped += batches[first++].length;
  let again = before - skipped;
  try {
    const load = ({ path, id }: ImageFile) => jobs.load(path, id, header.resize);
    const ahead = run.workers > 0 ? BATCHES_AHEAD : 0;
    for await (const { file, image, detections } of predictBatches(model, batches.slice(first), { load, ahead })) {
      if (again-- > 0) continue;
      const { fileWidth: width, fileHeight: height } = image;
      const { id, path, position, fingerprint } = file;
      const cells = selectCells(detections, thresholds, width, height);
      const prediction = { id, position, width, height, cells };
      const written = handled(jobs.write({ prediction, image: path, formats, out, classes: header.classes }));
      writing.push({ prediction, fingerprint, written });
      await note(run.workers > 0 ? WRITES_BEHIND : 0);
      if (stopping()) break;
    }
  } finally {
    try {
      await note(0);
    } finally {
      bar.stop();
    }
  }
  return done;
}

/** Predictions as a journal has them, an image at a time. */
export function* journalPredictions(entries: JournalReader['entries']): Generator<ImagePrediction> {
  for (const { entry, where } of entries) yield predictionOf(entry, where);
}

/** The text of a format for all images, in parts. */
export function folderOutput(
  format: FolderFormat,
  predictions: Iterable<ImagePrediction>,
  cocoIds: CocoIds,
): Iterable<string> {
  return format === 'submission' ? submissionCsv(predictions) : cocoResults(predictions, cocoIds);
}

/**
 * Makes the files for all images of a part from its journal, which must hold them all.
 * @returns the cells found and the paths of the files
 */
export function finishFolderRun({ out, formats, cocoIds }: FolderRun): { cells: number; paths: string[] } {
  const journal = join(out, JOURNAL);
  let cells = 0;
  for (const { entry } of readJournal(journal).entries) cells += entry.cells.length;
  const paths: string[] = [];
  for (const format of folderFormats) {
    if (!formats.includes(format)) continue;
    const path = join(out, folderFiles[format]);
    writePartsAtomic(path, folderOutput(format, journalPredictions(readJournal(journal).entries), cocoIds));
    paths.push(path);
  }
  return { cells, paths };
}
