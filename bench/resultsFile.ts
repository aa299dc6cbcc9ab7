import { existsSync, readFileSync } from 'node:fs';
import { UserError } from '../src/cli/errors.ts';
import { writeFileAtomic } from '../src/data/files.ts';

const TITLE = '# Benchmarks';
const INTRODUCTION =
  'The last full run on each adapter: `npm run bench -- --peers --markdown bench/RESULTS.md` writes its section.';

/** The key of a section: software adapters are known by their kind, GPUs by their name as well. */
function keyOf(heading: string): string {
  return /^## (lavapipe|swiftshader):/.exec(heading)?.[0] ?? heading;
}

/** Splits at headings of the second level, each section with its heading. */
function sectionsOf(text: string): string[] {
  return text.split(/^(?=## )/m).slice(1);
}

/**
 * The document with a section put in place of the one of the same adapter, or behind all others.
 *
 * @param section begins with its heading `## kind: name`
 * @param before the document as it is; empty for a new one
 */
export function withSection(before: string, section: string): string {
  const key = keyOf(section.split('\n', 1)[0]);
  const sections = sectionsOf(before);
  const at = sections.findIndex((one) => keyOf(one.split('\n', 1)[0]) === key);
  if (at < 0) sections.push(section);
  else sections[at] = section;
  return `${[`${TITLE}\n\n${INTRODUCTION}`, ...sections.map((one) => one.trimEnd())].join('\n\n')}\n`;
}

/** What is there; empty where there is nothing. @throws UserError for a file that is no such document: it is not overwritten */
export function readResults(path: string): string {
  if (!existsSync(path)) return '';
  const text = readFileSync(path, 'utf8');
  if (text.trim() !== '' && !text.startsWith(`${TITLE}\n`)) {
    throw new UserError(
      `${path} is no document of this bench (expected it to begin with "${TITLE}"): it stays as it is.`,
    );
  }
  return text;
}

/** Writes one adapter's section, and leaves those of others. */
export function writeSection(path: string, section: string): void {
  writeFileAtomic(path, withSection(readResults(path), section));
}
