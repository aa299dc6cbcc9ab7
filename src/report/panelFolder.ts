/** A folder of analysed images: a picture each, and `panels.json`, which tells what they show. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { writeFileAtomic } from '../data/files.ts';
import { writePng } from '../data/png.ts';
import { analysisPicture, type ImageAnalysis, VIEW_NAMES } from '../eval/analyzeImage.ts';
import type { Thresholds } from '../eval/thresholds.ts';

const INDEX = 'panels.json';

const whole = z.int().min(0);
const panelSchema = z.object({
  id: z.string(),
  /** The picture's name in the folder. */
  file: z.string(),
  /** The image's own competition score; null for a box-only model. */
  score: z.number().nullable(),
  /** Cells by class. */
  counts: z.array(z.object({ class: z.string(), label: whole, truth: whole, found: whole, detected: whole })),
  /** Boxes found, after NMS. */
  boxes: whole,
  /** Where in the picture each view lies. */
  views: z.partialRecord(z.enum(VIEW_NAMES), z.object({ x: whole, y: whole, width: whole, height: whole })),
});
const indexSchema = z.object({
  /** The epoch whose weights found it. */
  epoch: whole,
  thresholds: z.object({ minScore: z.array(z.number()), maskThreshold: z.array(z.number()) }),
  panels: z.array(panelSchema),
});

export type PanelEntry = z.infer<typeof panelSchema>;
export type PanelIndex = z.infer<typeof indexSchema>;

/** A name for a file that any system takes, different for different ids of a folder. */
function fileNameOf(id: string, taken: ReadonlySet<string>): string {
  const plain = id.replace(/[^\w.-]+/g, '_').replace(/^\.+/, '_');
  let name = `${plain}.png`;
  for (let n = 2; taken.has(name); n++) name = `${plain}-${n}.png`;
  return name;
}

/** Writes pictures one after another, and the index of all of them at the end. */
export class PanelWriter {
  readonly #dir: string;
  readonly #index: PanelIndex;
  readonly #classes: readonly string[];

  /**
   * @param dir made where it is missing
   * @param classes names of the labels 1 …
   */
  constructor(
    dir: string,
    { epoch, thresholds, classes }: { epoch: number; thresholds: Thresholds; classes: readonly string[] },
  ) {
    this.#dir = dir;
    this.#classes = classes;
    this.#index = { epoch, thresholds, panels: [] };
  }

  add(analysis: ImageAnalysis): PanelEntry {
    const { id, counts, boxes, score } = analysis;
    const { picture, places } = analysisPicture(analysis, this.#index.thresholds, this.#classes);
    const file = fileNameOf(id, new Set(this.#index.panels.map((panel) => panel.file)));
    writePng(join(this.#dir, file), picture.width, picture.height, picture.data);
    const entry: PanelEntry = {
      id,
      file,
      score: score?.score ?? null,
      counts: counts.map((count) => ({ class: this.#classes[count.label - 1], ...count })),
      boxes,
      views: places,
    };
    this.#index.panels.push(entry);
    return entry;
  }

  /** Writes the index. */
  finish(): void {
    writeFileAtomic(join(this.#dir, INDEX), `${JSON.stringify(this.#index, null, 2)}\n`);
  }
}

/** The index of a folder, or null where there is none. @throws UserError for one that this program did not write */
export function readPanelIndex(dir: string): PanelIndex | null {
  const path = join(dir, INDEX);
  if (!existsSync(path)) return null;
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`${path}: expected JSON as this program writes it (${(error as Error).message}).`);
  }
  const parsed = indexSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new UserError(
    `${path}: expected an index of pictures as this program writes it (${issue.path.join('.')}: ${issue.message}).`,
  );
}
