import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../src/gpu/cacheFolder.ts';
import { formulaWeight } from '../src/model/formulaWeights.ts';
import type { MaskRCNN } from '../src/model/maskRcnn.ts';
import { PEERS_FOLDER } from './peerEngines.ts';

/** Of the weights by formula, which this program and torchvision are given alike. */
export const WEIGHTS_SEED = 1;

/** The weights of any model of ResNet-50 by the golden cases' formula: they keep activations at sane sizes, and need no file. */
export function formulaSource(model: MaskRCNN) {
  return (name: string) => {
    const entry = model.state.entries.get(name);
    if (!entry) return undefined;
    return { shape: entry.shape, data: formulaWeight(name, entry.shape, WEIGHTS_SEED, { basicBlocks: false }) };
  };
}

export interface ExportedModel {
  height: number;
  width: number;
  /** With the background. */
  classes: number;
  /** The most detections of an image. */
  detections: number;
}

function run(program: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (text) => {
      said = (said + String(text)).slice(-20_000);
    });
    child.on('error', (error) => reject(new Error(`${program} does not run (${error.message})`)));
    child.on('close', (code) => {
      if (code === 0) resolve();
      else reject(new Error(said.trim().split('\n').at(-1) ?? `exit code ${code}`));
    });
  });
}

/**
 * torchvision's `maskrcnn_resnet50_fpn` as an ONNX file, with the weights of {@link formulaSource}; kept in the user's cache folder
 * (176 MB), since Python takes a while over it.
 *
 * @throws Error with the reason where that Python cannot export it: it needs torch, torchvision and onnx
 */
export async function exportedModel(python: string, model: MaskRCNN, what: ExportedModel): Promise<string> {
  const { height, width, classes, detections } = what;
  const cache = cacheFolder();
  const kept = join(cache, `bench-resnet50-${height}x${width}-${classes}-${detections}-v1.onnx`);
  if (existsSync(kept)) return kept;
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, 'export-'));
  try {
    const entries = [...model.state.entries.values()].map(({ name, shape }, i) => {
      const file = join(folder, `${i}.bin`);
      const values = formulaWeight(name, shape, WEIGHTS_SEED, { basicBlocks: false });
      writeFileSync(file, new Uint8Array(values.buffer));
      return { name, shape, file };
    });
    const list = join(folder, 'weights.json');
    writeFileSync(list, JSON.stringify(entries));
    const made = join(folder, 'model.onnx');
    const script = join(PEERS_FOLDER, 'export_resnet50.py');
    await run(python, [script, list, made, ...[height, width, classes, detections].map(String)]);
    renameSync(made, kept);
    return kept;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`torchvision's model could not be exported by ${python}: ${reason}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
