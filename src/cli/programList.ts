import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { writeFileAtomic } from '../data/files.ts';
import { cacheFolder, cacheName } from '../gpu/cacheFolder.ts';
import { fingerprint } from '../gpu/fingerprint.ts';
import type { Gpu } from '../gpu/gpu.ts';
import { assembleWgsl, declaredProgram, type Program } from '../gpu/program.ts';
import { halvesOf, type ProgramUse } from '../gpu/programCache.ts';
import type { MaskRCNNConfig } from '../model/config.ts';
import { type Progress, startProgress } from '../train/progress.ts';

/*
 * Which programs a kind of work dispatches on an adapter is noted when it ends, so that the next start compiles them at once, side by side, before the
 * first step asks for one after the other. Drivers keep what they have compiled; this list holds only names and flags.
 */

const scalar = z.union([z.string(), z.number(), z.boolean()]);
const listSchema = z.array(
  z.object({ name: z.string(), flags: z.record(z.string(), scalar), halves: z.string().optional(), text: z.string() }),
);

/** The list's file for work on an adapter. */
export function programListFile({ info }: Gpu['opened'], work: string): string {
  return join(cacheFolder(), 'programs', cacheName(`${info.kind} ${work}`, [info.name, work]));
}

/** The name of detection by a model, whatever its weights. */
export function detectionWork(config: MaskRCNNConfig): string {
  return `detect ${fingerprint(JSON.stringify(config))}`;
}

const textOf = (use: ProgramUse): string => fingerprint(assembleWgsl(use.program, use.flags, halvesOf(use)));

/** The programs of a list that are still what they were. A file that is none, or of another version, is an empty list. */
export function readProgramList(path: string): ProgramUse[] {
  if (!existsSync(path)) return [];
  let stored: unknown;
  try {
    stored = JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return [];
  }
  const { data = [] } = listSchema.safeParse(stored);
  return data.flatMap(({ name, text, ...rest }) => {
    const program: Program | undefined = declaredProgram(name);
    const use = program && { program, ...rest };
    return use && textOf(use) === text ? [use] : [];
  });
}

/** Milliseconds after which compilation is shown. */
const SHOWN_AFTER = 300;

/** Compiles what the work dispatched the last time. What does not compile is told when it is dispatched. */
export async function compileKnown(gpu: Gpu, work: string): Promise<void> {
  const uses = readProgramList(programListFile(gpu.opened, work));
  if (uses.length === 0) return;
  const began = Date.now();
  let bar: Progress | undefined;
  await gpu.prepare(uses, (count) => {
    if (!bar && Date.now() - began > SHOWN_AFTER) bar = startProgress('Compiling kernels', uses.length);
    bar?.update(count);
  });
  bar?.stop();
}

/**
 * Notes what was dispatched, for `compileKnown`.
 * @param say is told where it cannot be written, which costs the next start a part of a second, nothing more
 */
export function keepProgramList(gpu: Gpu, work: string, say: (line: string) => void): void {
  const path = programListFile(gpu.opened, work);
  const list = gpu.programsUsed.map((use) => {
    const { program, ...rest } = use;
    return { name: program.name, ...rest, text: textOf(use) };
  });
  const text = `${JSON.stringify(list)}\n`;
  try {
    if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileAtomic(path, text);
  } catch (error) {
    say(`The list of kernels for the next start cannot be kept: ${error instanceof Error ? error.message : error}`);
  }
}
