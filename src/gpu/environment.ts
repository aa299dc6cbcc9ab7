import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, release, totalmem, type } from 'node:os';
import type { OpenedDevice } from './adapter.ts';

/** Where and with what something was computed. */
export interface Environment {
  machine: { processor: string; cores: number; memoryGiB: number; system: string };
  adapter: { kind: string; name: string; driver: string };
  versions: Record<string, string>;
}

function versionOf(path: string): string {
  const { version } = JSON.parse(readFileSync(path, 'utf8')) as { version: string };
  return version;
}

/** This machine, the adapter of an opened device, and the versions of program, Node and Dawn. */
export function environment({ info }: Pick<OpenedDevice, 'info'>): Environment {
  const require = createRequire(import.meta.url);
  const processors = cpus();
  return {
    machine: {
      processor: processors[0]?.model.trim() ?? 'unknown processor',
      cores: processors.length,
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      system: `${type()} ${release()}`,
    },
    adapter: { kind: info.kind, name: info.name, driver: info.driver ?? info.description },
    versions: {
      'webgpu-mask-rcnn': versionOf(require.resolve('../../package.json')),
      node: process.versions.node,
      webgpu: versionOf(require.resolve('webgpu/package.json')),
    },
  };
}
