/**
 * The bundled software adapter: SwiftShader and a Vulkan loader, as the npm package `@sparticuz/chromium` carries them for
 * Linux on x64, unpacked once into the user's cache folder and shown to Vulkan by environment variables. It needs no package
 * of the system, so that the program computes on any Linux machine after `npm ci`.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { brotliDecompressSync } from 'node:zlib';
import koffi, { type LibraryHandle } from 'koffi';
import tar from 'tar-stream';
import { UserError } from '../cli/errors.ts';
import { messageOf } from './adapter.ts';
import { cacheFolder, userCache } from './cacheFolder.ts';

const carrier = '@sparticuz/chromium';
const archiveName = 'bin/swiftshader.tar.br';
const loaderName = 'libvulkan.so.1';
const manifestName = 'vk_swiftshader_icd.json';
/** The archive also holds OpenGL libraries, which nobody here needs. */
const wanted = [loaderName, 'libvk_swiftshader.so', manifestName];

/** Whether the bundled binaries can run here. */
export const swiftshaderFitsPlatform = process.platform === 'linux' && process.arch === 'x64';

function carrierFolder(): string {
  // The package exports only its program, so its folder is found from there, upwards.
  const program = createRequire(import.meta.url).resolve(carrier);
  let folder = dirname(program);
  while (!existsSync(join(folder, archiveName))) {
    if (folder === dirname(folder)) throw new Error(`no ${archiveName} above ${program}`);
    folder = dirname(folder);
  }
  return folder;
}

function isComplete(folder: string): boolean {
  return wanted.every((name) => existsSync(join(folder, name)));
}

async function unpack(archive: string, folder: string): Promise<void> {
  const extract = tar.extract();
  extract.end(brotliDecompressSync(readFileSync(archive)));
  for await (const entry of extract) {
    // Every entry must be consumed, or the archive stops there.
    const content = await buffer(entry);
    if (wanted.includes(entry.header.name)) await writeFile(join(folder, entry.header.name), content);
  }
  if (!isComplete(folder)) throw new Error(`${archive} does not hold ${wanted.join(', ')}`);
}

/**
 * Gives the folder of the unpacked SwiftShader, unpacking it first where it is not yet there (under a second, 7 MB in
 * `$XDG_CACHE_HOME` or `~/.cache`). Several processes may do so at once: each unpacks into a folder of its own, and the
 * first to rename it wins.
 * @throws UserError when the package is missing or the cache folder cannot be written.
 */
export async function unpackSwiftshader(): Promise<string> {
  const cache = cacheFolder();
  let temporary: string | undefined;
  try {
    const source = carrierFolder();
    const { version } = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8')) as { version: string };
    const folder = join(cache, `swiftshader-${version}`);
    if (isComplete(folder)) return folder;
    mkdirSync(dirname(folder), { recursive: true });
    temporary = mkdtempSync(`${folder}.`);
    await unpack(join(source, archiveName), temporary);
    moveIntoPlace(temporary, folder);
    return folder;
  } catch (error) {
    throw new UserError(
      `The bundled software adapter cannot be unpacked into ${userCache()} (${messageOf(error)}): ` +
        'expected a folder that can be written (XDG_CACHE_HOME chooses another) and all packages of "npm ci".',
    );
  } finally {
    if (temporary) rmSync(temporary, { recursive: true, force: true });
  }
}

function moveIntoPlace(temporary: string, folder: string): void {
  try {
    renameSync(temporary, folder);
  } catch (error) {
    if (isComplete(folder)) return; // Another process was faster, with the same files.
    if (!existsSync(folder)) throw error;
    rmSync(folder, { recursive: true, force: true }); // Somebody deleted a part of it.
    renameSync(temporary, folder);
  }
}

/** Libraries stay loaded as long as their handles are reachable. */
const loaded: LibraryHandle[] = [];

/** Whether the dynamic linker finds a Vulkan loader of the system (it then stays loaded, as Dawn will load it anyway). */
export function systemHasVulkanLoader(): boolean {
  try {
    loaded.push(koffi.load(loaderName, { global: true }));
    return true;
  } catch {
    return false;
  }
}

/**
 * Loads the bundled Vulkan loader. Dawn asks for `libvulkan.so.1`, and the dynamic linker answers with the library that is
 * already loaded under that name. It finds the system's drivers as the system's own loader would.
 */
export function loadBundledVulkanLoader(folder: string): void {
  try {
    loaded.push(koffi.load(join(folder, loaderName), { global: true }));
  } catch (error) {
    throw new UserError(`The bundled Vulkan loader in ${folder} cannot be loaded: ${messageOf(error)}.`);
  }
}

/**
 * Sets a variable for JavaScript and for native code. In a worker thread `process.env` is a copy that native code never
 * sees, hence libc's own `setenv`.
 */
function setNativeEnvironment(name: string, value: string): void {
  process.env[name] = value;
  const libc = koffi.load(null);
  loaded.push(libc);
  const setenv = libc.func('int setenv(const char *name, const char *value, int overwrite)');
  if (setenv(name, value, 1) !== 0) throw new Error(`setenv ${name} failed`);
}

/**
 * Shows SwiftShader to the Vulkan instances created from now on.
 * @param only hides the system's own drivers: for loaders before 1.3.234, which do not know how to add one.
 */
export function showSwiftshader(folder: string, only: boolean): void {
  const manifest = join(folder, manifestName);
  if (only) {
    setNativeEnvironment('VK_DRIVER_FILES', manifest);
    setNativeEnvironment('VK_ICD_FILENAMES', manifest); // The older name of the same variable.
    return;
  }
  // A list of drivers that the user has set makes Vulkan ignore the variable that adds one: then the list itself is extended.
  const set = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'].filter((name) => process.env[name]);
  for (const name of set.length > 0 ? set : ['VK_ADD_DRIVER_FILES']) {
    const others = (process.env[name] ?? '').split(delimiter).filter((path) => path !== '' && path !== manifest);
    setNativeEnvironment(name, [...others, manifest].join(delimiter));
  }
}
