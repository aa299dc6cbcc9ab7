import { homedir } from 'node:os';
import { join } from 'node:path';
import { fingerprint } from './fingerprint.ts';

/**
 * The user's folder for what can be made again: `$XDG_CACHE_HOME`, else what the system has for it (`%LOCALAPPDATA%`, `~/Library/Caches`,
 * `~/.cache`).
 */
export function userCache(environment: NodeJS.ProcessEnv = process.env, platform: string = process.platform): string {
  if (environment.XDG_CACHE_HOME) return environment.XDG_CACHE_HOME;
  if (platform === 'win32') return environment.LOCALAPPDATA || join(homedir(), 'AppData', 'Local');
  return platform === 'darwin' ? join(homedir(), 'Library', 'Caches') : join(homedir(), '.cache');
}

/** This program's part of it. */
export function cacheFolder(): string {
  return join(userCache(), 'webgpu-mask-rcnn');
}

/** The name of a JSON file there: one that people can read, and a fingerprint of all that tells it from others. */
export function cacheName(readable: string, parts: readonly string[]): string {
  return `${readable.replace(/[^A-Za-z0-9]+/g, '-').slice(0, 60)}-${fingerprint(parts.join('\n'))}.json`;
}
