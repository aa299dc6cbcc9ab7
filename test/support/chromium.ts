/**
 * The headless Chromium of the npm package that also brings SwiftShader: a real browser with WebGPU on the CPU. Unpacked once
 * into the user's cache folder together with the few libraries that a bare system lacks (NSS), so it needs libc alone.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { brotliDecompressSync } from 'node:zlib';
import { type Browser, chromium } from 'playwright-core';
import tar from 'tar-stream';

async function unpackArchive(archive: string, folder: string): Promise<void> {
  const extract = tar.extract();
  extract.end(brotliDecompressSync(readFileSync(archive)));
  for await (const entry of extract) {
    const content = await buffer(entry);
    if (entry.header.type === 'file') writeFileSync(join(folder, basename(entry.header.name)), content);
  }
}

/** The folder with `chromium` and its libraries; filled under another name and renamed, so it is whole or not there. */
async function unpackChromium(): Promise<string> {
  const carrier = resolve(dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium')), '../..');
  const { version } = JSON.parse(readFileSync(join(carrier, 'package.json'), 'utf8')) as { version: string };
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const folder = join(cache, `webgpu-mask-rcnn/chromium-${version}`);
  if (existsSync(folder)) return folder;
  mkdirSync(dirname(folder), { recursive: true });
  const temporary = mkdtempSync(`${folder}.`);
  try {
    const program = brotliDecompressSync(readFileSync(join(carrier, 'bin/chromium.br')));
    writeFileSync(join(temporary, 'chromium'), program, { mode: 0o755 });
    for (const archive of ['al2023', 'swiftshader'])
      await unpackArchive(join(carrier, `bin/${archive}.tar.br`), temporary);
    renameSync(temporary, folder);
  } catch (error) {
    // Another process may have been faster, with the same files.
    if (!existsSync(folder)) throw error;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return folder;
}

/** A browser, or why none can start on this machine. That it has WebGPU is for the tests to find out. */
export async function launchChromium(): Promise<{ browser: Browser; unfit: null } | { browser: null; unfit: string }> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    const unfit = `the bundled Chromium is for Linux on x64, this is ${process.platform} on ${process.arch}`;
    return { browser: null, unfit };
  }
  const folder = await unpackChromium();
  try {
    const browser = await chromium.launch({
      executablePath: join(folder, 'chromium'),
      args: ['--no-sandbox', '--headless=shell', '--enable-unsafe-webgpu', '--disable-dev-shm-usage'],
      // The variables that show SwiftShader to this process are not for the browser, which has its own.
      env: { HOME: homedir(), PATH: process.env.PATH, LD_LIBRARY_PATH: folder },
    });
    return { browser, unfit: null };
  } catch (error) {
    const [first] = (error as Error).message.split('\n');
    return { browser: null, unfit: `the bundled Chromium does not start here (${first})` };
  }
}
