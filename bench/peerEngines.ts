import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { UserError } from '../src/cli/errors.ts';
import { nearestName } from '../src/cli/nearest.ts';
import { say } from '../src/cli/session.ts';
import type { FoundAdapter } from '../src/gpu/adapter.ts';
import { messageOf } from '../src/gpu/adapter.ts';
import { systemHasVulkanLoader, unpackSwiftshader } from '../src/gpu/swiftshader.ts';
import { startProgress } from '../src/train/progress.ts';
import { type PeerCommand, PeerProcess } from './peerProcess.ts';
import { ADAPTER_VARIABLE, SOFTWARE_VARIABLE } from './peers/environment.ts';
import type { Ready } from './peers/work.ts';

/** Another engine, and how it is started. */
export interface PeerEngine {
  name: string;
  /** What it computes on: the bench's own adapter, or the processor without one. */
  computesOn: 'webgpu' | 'cpu';
  script: string;
  /** Options of Node; a Python script has none. */
  nodeOptions?: readonly string[];
  /** What Python must have to run it. */
  pythonModules?: readonly string[];
}

/** All that are compared, in the order of the tables. */
export const peerEngines: readonly PeerEngine[] = [
  { name: 'onnxruntime-node', computesOn: 'webgpu', script: 'onnxruntimeNode.ts' },
  // Its WebAssembly compiles faster so, and computes nothing itself.
  { name: 'onnxruntime-web', computesOn: 'webgpu', script: 'onnxruntimeWeb.ts', nodeOptions: ['--liftoff-only'] },
  { name: 'tfjs-webgpu', computesOn: 'webgpu', script: 'tfjs.ts' },
  { name: 'jax-js', computesOn: 'webgpu', script: 'jax.ts' },
  {
    name: 'tinygrad',
    computesOn: 'webgpu',
    script: 'tinygrad_peer.py',
    pythonModules: ['tinygrad', 'pydawn', 'numpy'],
  },
  { name: 'torch', computesOn: 'cpu', script: 'torch_peer.py', pythonModules: ['torch', 'torchvision', 'numpy'] },
];

/** The engines that `--peers` names, separated by commas; all without names. @throws UserError for an unknown name */
export function chooseEngines(names: string | true): PeerEngine[] {
  if (names === true) return [...peerEngines];
  const known = peerEngines.map(({ name }) => name);
  return names.split(',').map((name) => {
    const engine = peerEngines.find((one) => one.name === name.trim());
    if (engine) return engine;
    const nearest = nearestName(name, known);
    const end = nearest === undefined ? '.' : `; did you mean '${nearest}'?`;
    throw new UserError(`--peers knows no '${name}', expected some of ${known.join(', ')}${end}`);
  });
}

/** An engine that runs, or why it does not. */
export interface Peer {
  engine: PeerEngine;
  /** Null where it is left out. */
  process: PeerProcess | null;
  /** Null where it is left out. */
  ready: Ready | null;
  leftOut?: string;
}

/** Of the scripts that engines run. */
export const PEERS_FOLDER = join(import.meta.dirname, 'peers');
const INSTALL_MINUTES = 10;

/** True where `npm ci` has been done, with the versions that are asked for now. */
function installed(): boolean {
  const { dependencies } = JSON.parse(readFileSync(join(PEERS_FOLDER, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  return Object.entries(dependencies).every(([name, wanted]) => {
    const file = join(PEERS_FOLDER, 'node_modules', name, 'package.json');
    return existsSync(file) && (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version === wanted;
  });
}

/** The line of npm's complaint that tells most: npm begins with codes and ends with the path of its log. */
export function npmReason(said: string): string | undefined {
  const lines = said.split('\n').flatMap((line) => /^npm (?:error|ERR!) (.+)/.exec(line)?.[1].trim() ?? []);
  return lines.find((line) => /error: |reason: |not permitted|no space/i.test(line)) ?? lines[0];
}

/** Installs the engines of npm where they are missing; null, or why that failed. */
async function install(): Promise<string | null> {
  if (installed()) return null;
  say('Installing the engines to compare with (npm ci in bench/peers, about 900 MB on disk; once):');
  // Without scripts: onnxruntime-node's would fetch CUDA.
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund'];
  const child = spawn('npm', args, {
    cwd: PEERS_FOLDER,
    stdio: ['ignore', 'ignore', 'pipe'],
    shell: process.platform === 'win32',
  });
  let said = '';
  child.stderr.on('data', (text) => {
    said += String(text);
  });
  const bar = startProgress('npm ci, seconds', INSTALL_MINUTES * 60);
  const started = Date.now();
  const ticking = setInterval(() => bar.update(Math.round((Date.now() - started) / 1000), 'downloading'), 1000);
  const code = await new Promise<number | string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (status, signal) => resolve(status ?? signal ?? 'ended'));
    setTimeout(() => child.kill(), INSTALL_MINUTES * 60_000).unref();
  });
  clearInterval(ticking);
  bar.stop();
  if (code === 0 && installed()) return null;
  return `"npm ci" in bench/peers failed: ${npmReason(said) ?? `it ended with ${code}`}`;
}

/** Null where that Python has all modules, else what it lacks. */
function pythonLacks(python: string, modules: readonly string[]): string | null {
  const code = `import importlib.util as u; print(*[m for m in ${JSON.stringify(modules)} if not u.find_spec(m)])`;
  const { status, error, stdout, stderr } = spawnSync(python, ['-c', code], { encoding: 'utf8' });
  if (error) return `${python} does not run (${error.message}); --python names another`;
  if (status !== 0) return `${python} does not run (${stderr.trim().split('\n').at(-1)}); --python names another`;
  const missing = stdout.trim();
  return missing === '' ? null : `${python} has no ${missing.split(' ').join(', ')}; --python names another`;
}

/** Manifests of Vulkan drivers: those that the user has set, else those of the system's folders. */
function driverManifests(): string[] {
  const set = process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES;
  if (set) return set.split(delimiter);
  const shares = (process.env.XDG_DATA_DIRS || '/usr/local/share:/usr/share').split(delimiter);
  const folders = [join(homedir(), '.local/share'), '/etc', ...shares].map((share) => join(share, 'vulkan/icd.d'));
  return folders.filter(existsSync).flatMap((folder) => readdirSync(folder).map((file) => join(folder, file)));
}

/**
 * Variables that make an engine with a Dawn of its own find one adapter only, the bench's. Real GPUs are not hidden from each
 * other, only software adapters from them: an engine takes the one that it thinks fastest, as it would without the bench.
 */
async function adapterVariables({ kind, name }: FoundAdapter): Promise<NodeJS.ProcessEnv> {
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    [ADAPTER_VARIABLE]: name,
    [SOFTWARE_VARIABLE]: kind === 'gpu' ? '0' : '1',
  };
  if (process.platform !== 'linux') return env;
  const manifests = driverManifests();
  const bundled = kind === 'swiftshader' || !systemHasVulkanLoader() ? await unpackSwiftshader() : undefined;
  const software = /lvp_icd|swiftshader/;
  const shown: Record<FoundAdapter['kind'], string[]> = {
    lavapipe: manifests.filter((file) => /lvp_icd/.test(file)),
    swiftshader: bundled ? [join(bundled, 'vk_swiftshader_icd.json')] : [],
    gpu: manifests.filter((file) => !software.test(file)),
    cpu: [],
  };
  if (shown[kind].length > 0) {
    env.VK_DRIVER_FILES = shown[kind].join(delimiter);
    env.VK_ICD_FILENAMES = env.VK_DRIVER_FILES;
    delete env.VK_ADD_DRIVER_FILES;
  }
  // The loader that a system lacks comes with the bundled driver.
  if (bundled && !systemHasVulkanLoader()) {
    env.LD_LIBRARY_PATH = [bundled, env.LD_LIBRARY_PATH].filter(Boolean).join(delimiter);
  }
  return env;
}

/** Words that an engine's description of its adapter must have; nothing is asked of one that tells none. */
const EXPECTED: Record<FoundAdapter['kind'], RegExp> = {
  lavapipe: /llvmpipe|lavapipe|vulkan_lvp/i,
  swiftshader: /swiftshader/i,
  cpu: /./,
  gpu: /^(?!.*(llvmpipe|lavapipe|vulkan_lvp|swiftshader))/i,
};

export function commandOf(engine: PeerEngine, python: string, env: NodeJS.ProcessEnv): PeerCommand {
  const script = join(PEERS_FOLDER, engine.script);
  if (engine.pythonModules) return { program: python, args: [script], env };
  return { program: process.execPath, args: [...(engine.nodeOptions ?? []), '--import', 'tsx', script], env };
}

/**
 * Starts the engines, each in its own process, on the adapter that the bench computes on; installs those of npm first. One that
 * cannot be had or computes elsewhere is left out, with the reason.
 */
export async function startPeers(
  engines: readonly PeerEngine[],
  python: string,
  adapter: FoundAdapter,
): Promise<Peer[]> {
  const fromNpm = engines.some(({ pythonModules }) => !pythonModules) ? await install() : null;
  const env = await adapterVariables(adapter);
  const peers: Peer[] = [];
  for (const engine of engines) {
    const leave = (leftOut: string): void => void peers.push({ engine, process: null, ready: null, leftOut });
    const lacking = engine.pythonModules ? pythonLacks(python, engine.pythonModules) : fromNpm;
    if (lacking) {
      leave(lacking);
      continue;
    }
    const process = new PeerProcess(commandOf(engine, python, env));
    try {
      const ready = await process.start();
      if (engine.computesOn === 'webgpu' && ready.adapter !== '' && !EXPECTED[adapter.kind].test(ready.adapter)) {
        throw new Error(`it computes on ${ready.adapter}, not on ${adapter.name}`);
      }
      peers.push({ engine, process, ready });
    } catch (error) {
      process.close();
      leave(messageOf(error));
    }
  }
  return peers;
}

/** Ends their processes. */
export function closePeers(peers: readonly Peer[]): void {
  for (const { process } of peers) process?.close();
}

/** Starts the process of an engine again that broke over some work. */
export async function restartPeer(peer: Peer, python: string, adapter: FoundAdapter): Promise<void> {
  const process = new PeerProcess(commandOf(peer.engine, python, await adapterVariables(adapter)));
  try {
    await process.start();
    peer.process = process;
  } catch (error) {
    process.close();
    peer.process = null;
    peer.leftOut = messageOf(error);
  }
}
