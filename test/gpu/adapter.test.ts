import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import {
  candidates,
  describeAdapter,
  explainChoice,
  type FoundAdapter,
  optionalFeatures,
  parseAdapterChoice,
  requestFullDevice,
} from '../../src/gpu/adapter.ts';
import { openDevice as openInBrowser } from '../../src/gpu/browserAdapter.ts';
import { openDevice } from '../../src/gpu/nodeAdapter.ts';
import { swiftshaderFitsPlatform } from '../../src/gpu/swiftshader.ts';

function adapterInfo(fields: Partial<GPUAdapterInfo>): GPUAdapterInfo {
  const info = { vendor: '', architecture: '', device: '', description: '', isFallbackAdapter: false, ...fields };
  return { __brand: 'GPUAdapterInfo', ...info } as GPUAdapterInfo;
}

/** Opens a device in a process of its own, doubles three numbers on it and prints what was opened as one line of JSON. */
function openInChild(choice: string, variables: NodeJS.ProcessEnv = {}): Promise<{ code: number; output: string }> {
  const script = `
    const { openDevice } = await import('./src/gpu/nodeAdapter.ts');
    try {
      const { device, info, found, subgroupMinSize } = await openDevice(${JSON.stringify(choice)});
      const code = '@group(0) @binding(0) var<storage, read_write> x: array<f32>; @compute @workgroup_size(3) ' +
        'fn main(@builtin(local_invocation_index) i: u32) { x[i] = 2 * x[i]; }';
      const module = device.createShaderModule({ code });
      const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module } });
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
      const x = device.createBuffer({ size: 12, usage });
      device.queue.writeBuffer(x, 0, new Float32Array([1, 2.5, -3]));
      const back = device.createBuffer({ size: 12, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      const entries = [{ binding: 0, resource: { buffer: x } }];
      pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
      pass.dispatchWorkgroups(1);
      pass.end();
      encoder.copyBufferToBuffer(x, 0, back, 0, 12);
      device.queue.submit([encoder.finish()]);
      await back.mapAsync(GPUMapMode.READ);
      const doubled = [...new Float32Array(back.getMappedRange())];
      console.log(JSON.stringify({ kind: info.kind, kinds: found.map((f) => f.kind), subgroupMinSize, doubled }));
      process.exit(0);
    } catch (error) {
      console.log(error.name + ': ' + error.message);
      process.exit(error.exitCode ?? 1);
    }`;
  // This process may have shown SwiftShader to itself: the child starts without that.
  const inherited = Object.entries(process.env).filter(
    ([name, value]) => !(name.startsWith('VK_') && value?.includes('vk_swiftshader_icd.json')),
  );
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      env: { ...Object.fromEntries(inherited), ...variables },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? -1, output: output.trim() }));
  });
}

const environmentChoice = parseAdapterChoice(process.env.WEBGPU_ADAPTER ?? 'auto');
const opened = await openDevice(environmentChoice);
const hasLavapipe = opened.found.some(({ kind, usable }) => kind === 'lavapipe' && usable);
const hasGpu = opened.found.some(({ kind }) => kind === 'gpu');

describe('the adapter of the environment', () => {
  afterAll(() => opened.device.destroy());

  it('opens with all limits of its adapter and the optional features it has', () => {
    const { adapter, device, info, found, why, subgroupMinSize, subgroupMaxSize } = opened;
    expect(found).toContain(info);
    expect(info.usable).toBe(true);
    expect(why).toContain(info.name);
    if (environmentChoice !== 'auto') expect(info.kind).toBe(environmentChoice);
    for (const name of [
      'maxBufferSize',
      'maxStorageBufferBindingSize',
      'maxComputeInvocationsPerWorkgroup',
      'maxStorageBuffersPerShaderStage',
    ] as const)
      expect(device.limits[name], name).toBe(adapter.limits[name]);
    for (const feature of optionalFeatures)
      expect(device.features.has(feature), feature).toBe(adapter.features.has(feature));
    if (device.features.has('subgroups')) {
      expect(subgroupMinSize).toBeGreaterThanOrEqual(4);
      expect(subgroupMaxSize).toBeGreaterThanOrEqual(subgroupMinSize);
    } else expect([subgroupMinSize, subgroupMaxSize]).toEqual([0, 0]);
  });

  it.skipIf(!swiftshaderFitsPlatform)('lists the bundled SwiftShader when all are asked for', async () => {
    const { device, info, found } = await openDevice(environmentChoice, true);
    expect(found.map(({ kind }) => kind)).toContain('swiftshader');
    expect(info.kind).toBe(opened.info.kind);
    device.destroy();
  });

  it.skipIf(hasGpu)('says in one sentence that there is no real GPU, and what there is', async () => {
    const refusal = openDevice('gpu');
    await expect(refusal).rejects.toBeInstanceOf(UserError);
    await expect(refusal).rejects.toThrow(/^No real GPU is usable \((found: |none was found)/);
  });

  it('is not looked for in a page without WebGPU', async () => {
    await expect(openInBrowser('auto')).rejects.toThrow('This page has no WebGPU');
  });
});

describe('software adapters in processes of their own', () => {
  let cache: string;
  let noDriver: NodeJS.ProcessEnv;
  beforeAll(() => {
    cache = mkdtempSync(join(tmpdir(), 'adapter-cache-'));
    // The lists of drivers name a file that does not exist: the loader then finds none of the system's.
    noDriver = { VK_ICD_FILENAMES: join(cache, 'none.json'), VK_DRIVER_FILES: join(cache, 'none.json') };
  });
  afterAll(() => rmSync(cache, { recursive: true, force: true }));

  it.skipIf(!hasLavapipe)('lavapipe computes', async () => {
    const { code, output } = await openInChild('lavapipe');
    expect(code, output).toBe(0);
    expect(JSON.parse(output)).toMatchObject({ kind: 'lavapipe', doubled: [2, 5, -6] });
  });

  it.skipIf(!swiftshaderFitsPlatform)('two processes at once unpack SwiftShader, and both compute on it', async () => {
    const variables = { ...noDriver, XDG_CACHE_HOME: cache };
    const both = await Promise.all([openInChild('swiftshader', variables), openInChild('auto', variables)]);
    for (const { code, output } of both) {
      expect(code, output).toBe(0);
      expect(JSON.parse(output)).toEqual({
        kind: 'swiftshader',
        kinds: ['swiftshader'],
        subgroupMinSize: 4,
        doubled: [2, 5, -6],
      });
    }
    const folders = readdirSync(join(cache, 'webgpu-mask-rcnn'));
    expect(folders).toEqual([expect.stringMatching(/^swiftshader-\d+\.\d+\.\d+$/)]);
    expect(readdirSync(join(cache, 'webgpu-mask-rcnn', folders[0])).sort()).toEqual([
      'libvk_swiftshader.so',
      'libvulkan.so.1',
      'vk_swiftshader_icd.json',
    ]);
  });

  it.skipIf(!swiftshaderFitsPlatform)('a cache folder that cannot be made is named in one sentence', async () => {
    const file = join(cache, 'a-file');
    writeFileSync(file, '');
    const { code, output } = await openInChild('swiftshader', { ...noDriver, XDG_CACHE_HOME: file });
    expect(code, output).toBe(2);
    expect(output).toContain(`UserError: The bundled software adapter cannot be unpacked into ${file} (`);
    expect(output).not.toContain('\n');
  });
});

describe('what an adapter is', () => {
  const lavapipe = { vendor: 'mesa', architecture: 'software', isFallbackAdapter: true };
  const cases: [string, GPUAdapterInfo, Partial<FoundAdapter>][] = [
    [
      'NVIDIA H200',
      adapterInfo({ vendor: 'nvidia', architecture: 'hopper', description: 'NVIDIA: 575.57' }),
      { kind: 'gpu', usable: true },
    ],
    [
      'llvmpipe (LLVM 15.0.6, 256 bits)',
      adapterInfo({ ...lavapipe, description: 'llvmpipe: Mesa 25.0.7-2 (LLVM 15.0.6)' }),
      { kind: 'lavapipe', usable: true },
    ],
    [
      'llvmpipe (LLVM 14.0.6, 256 bits)',
      adapterInfo({ ...lavapipe, description: 'llvmpipe: Mesa 22.3.6 (LLVM 14.0.6)' }),
      { kind: 'lavapipe', usable: false, reason: 'Mesa 22.3 is too old, 25 or later is needed' },
    ],
    [
      'SwiftShader Device (Subzero)',
      adapterInfo({ vendor: 'google', architecture: 'swiftshader', isFallbackAdapter: true }),
      { kind: 'swiftshader', usable: true },
    ],
    [
      'Microsoft Basic Render Driver',
      adapterInfo({ vendor: 'microsoft', isFallbackAdapter: true }),
      { kind: 'cpu', usable: true },
    ],
  ];
  const all = cases.map(([name, info]) => ({ info: describeAdapter(info, name) }));

  it.each(cases)('%s', (name, info, expected) => {
    expect(describeAdapter(info, name)).toMatchObject({ name, ...expected });
  });

  it('auto prefers hardware, then working lavapipe, then SwiftShader', () => {
    const kinds = (choice: 'auto' | 'gpu' | 'lavapipe', from = all) =>
      candidates(from, choice).map(({ info }) => info.kind);
    expect(kinds('auto')).toEqual(['gpu', 'lavapipe', 'swiftshader', 'cpu']);
    expect(kinds('gpu')).toEqual(['gpu']);
    expect(kinds('lavapipe', [all[2], all[3]])).toEqual([]);
    expect(kinds('auto', [all[2], all[3]])).toEqual(['swiftshader']);
    expect(explainChoice('auto', all[3].info, [all[2].info, all[3].info])).toContain('Mesa 22.3 is too old');
  });

  it('an unknown choice is answered with the known ones', () => {
    expect(() => parseAdapterChoice('metal')).toThrow(
      new UserError('Unknown adapter "metal": expected one of auto, gpu, lavapipe, swiftshader.'),
    );
    expect(parseAdapterChoice('gpu')).toBe('gpu');
  });
});

describe('requestFullDevice', () => {
  /** An adapter that lists all optional features and refuses devices with one of `refused`. */
  function pickyAdapter(refused: readonly string[], requests: GPUDeviceDescriptor[]): GPUAdapter {
    const limits = Object.create({ maxBufferSize: 1024, maxBindGroups: 4, label: 'not a limit' }) as GPUSupportedLimits;
    const requestDevice = async (descriptor: GPUDeviceDescriptor) => {
      requests.push(descriptor);
      const features = [...(descriptor.requiredFeatures ?? [])];
      const bad = features.find((feature) => refused.includes(feature));
      if (bad !== undefined || refused.includes('device')) throw new Error(`refused ${bad ?? 'device'}`);
      return { features: new Set(features), destroy: () => undefined };
    };
    return { features: new Set(optionalFeatures), limits, requestDevice } as unknown as GPUAdapter;
  }

  it('asks for every limit, those of the prototype too, and for all features at once', async () => {
    const requests: GPUDeviceDescriptor[] = [];
    await requestFullDevice(async () => pickyAdapter([], requests));
    expect(requests).toEqual([
      { requiredFeatures: [...optionalFeatures], requiredLimits: { maxBufferSize: 1024, maxBindGroups: 4 } },
    ]);
  });

  it('loses only the feature that is refused', async () => {
    const { device } = await requestFullDevice(async () => pickyAdapter(['timestamp-query'], []));
    expect([...device.features]).toEqual(['shader-f16', 'subgroups']);
  });

  it('passes on the refusal of a device without features', async () => {
    await expect(requestFullDevice(async () => pickyAdapter(['device'], []))).rejects.toThrow('refused device');
  });
});
