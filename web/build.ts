/** Bundles the page into two files that work from any folder, without a server or a network: `node --import tsx web/build.ts`. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { writeFileAtomic } from '../src/data/files.ts';

/**
 * Writes `index.html` and `main.js`. The script is a classic one, since browsers refuse modules of `file:` pages.
 *
 * @param outDir made where it is missing
 * @returns the page's path and the size of its script in bytes
 * @throws when something of Node is reachable from the page, or the code does not parse
 */
export async function buildWeb(
  outDir = resolve(import.meta.dirname, '../dist/web'),
): Promise<{ page: string; scriptBytes: number }> {
  const bundle = await build({
    entryPoints: [join(import.meta.dirname, 'main.ts')],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    legalComments: 'none',
  });
  const script = bundle.outputFiles[0].contents;
  const page = join(outDir, 'index.html');
  writeFileAtomic(join(outDir, 'main.js'), script);
  writeFileAtomic(page, readFileSync(join(import.meta.dirname, 'index.html')));
  return { page, scriptBytes: script.length };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { page, scriptBytes } = await buildWeb();
  process.stdout.write(`${page} (its script has ${Math.round(scriptBytes / 1024)} KB): open it in a browser.\n`);
}
