import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { type RgbImage, readPng } from '../../src/data/png.ts';
import { makeTarget } from '../../src/data/target.ts';
import { analyzeImage } from '../../src/eval/analyzeImage.ts';
import { PanelWriter, readPanelIndex } from '../../src/report/panelFolder.ts';
import { crop, encodeLayer, encodePlain } from '../../src/report/panelLayers.ts';
import { noise, removeFolders, temporaryFolder } from '../data/folders.ts';

afterAll(removeFolders);

const thresholds = { minScore: [0, 0.5], maskThreshold: [0, 0.5] };

function analysisOf(id: string) {
  const [width, height] = [24, 16];
  const masks = new Uint8Array(width * height);
  for (let row = 4; row < 12; row++) masks.fill(1, row * width + 6, row * width + 15);
  return analyzeImage({
    image: { id, width, height, data: Float32Array.from(noise(width, height, 1), (value) => value / 255) },
    target: makeTarget(Float32Array.of(6, 4, 14, 11), Int32Array.of(1), masks),
    detections: {
      boxes: Float32Array.of(5, 4, 14, 11),
      labels: Int32Array.of(1),
      scores: Float32Array.of(0.8),
      masks: [{ x: 5, y: 4, width: 10, height: 8, data: new Float32Array(80).fill(1) }],
    },
    thresholds,
    classes: ['cell'],
    scale: 2,
  });
}

describe('a folder of panels', () => {
  it('tells what its pictures show and where', () => {
    const dir = join(temporaryFolder(), 'new');
    const writer = new PanelWriter(dir, { epoch: 3, thresholds, classes: ['cell'] });
    const analysis = analysisOf('plain');
    writer.add(analysis);
    writer.finish();
    expect(readdirSync(dir).sort()).toEqual(['panels.json', 'plain.png']);
    const index = readPanelIndex(dir);
    expect(index).toMatchObject({ epoch: 3, thresholds });
    const [panel] = index!.panels;
    expect(panel).toMatchObject({
      id: 'plain',
      file: 'plain.png',
      score: analysis.score!.score,
      boxes: 1,
      counts: [{ class: 'cell', label: 1, truth: 1, found: 1, detected: 1 }],
    });
    const picture = readPng(join(dir, panel.file));
    for (const [name, place] of Object.entries(panel.views)) {
      expect(crop(picture, place), name).toEqual(analysis.views[name as keyof typeof panel.views]);
    }
  });

  it('has names that any system takes, whatever the ids', () => {
    const dir = temporaryFolder();
    const writer = new PanelWriter(dir, { epoch: 1, thresholds, classes: ['cell'] });
    for (const id of ['../a b', '__a_b', 'é/\\:', '.hidden']) writer.add(analysisOf(id));
    writer.finish();
    expect(readPanelIndex(dir)!.panels.map(({ id, file }) => [id, file])).toEqual([
      ['../a b', '__a_b.png'],
      ['__a_b', '__a_b-2.png'],
      ['é/\\:', '_.png'],
      ['.hidden', '_hidden.png'],
    ]);
    expect(readdirSync(dir).sort()).toEqual(['_.png', '__a_b-2.png', '__a_b.png', '_hidden.png', 'panels.json']);
  });

  it('that is none has no index; one of another kind is refused by name', () => {
    const dir = temporaryFolder();
    expect(readPanelIndex(dir)).toBeNull();
    for (const [text, fault] of [
      ['{', 'expected JSON'],
      ['{"epoch": 1, "thresholds": {"minScore": [], "maskThreshold": []}, "panels": [{"id": 1}]}', 'panels.0.id'],
    ]) {
      writeFileSync(join(dir, 'panels.json'), text);
      expect(() => readPanelIndex(dir)).toThrow(UserError);
      expect(() => readPanelIndex(dir)).toThrow(fault);
      expect(() => readPanelIndex(dir)).toThrow(join(dir, 'panels.json'));
    }
  });
});

describe('layers', () => {
  const base: RgbImage = { width: 9, height: 7, data: noise(9, 7, 2) };

  it('laid over the picture give what was drawn', () => {
    const drawn = { ...base, data: base.data.map((value, i) => (i % 5 === 0 ? 255 - value : value)) };
    const layer = PNG.sync.read(encodeLayer(drawn, base));
    const together = base.data.map((value, i) => {
      const at = 4 * Math.floor(i / 3);
      return layer.data[at + 3] === 255 ? layer.data[at + (i % 3)] : value;
    });
    expect(together).toEqual(drawn.data);
    const clear = PNG.sync.read(encodeLayer(base, base));
    expect(clear.data.every((value) => value === 0)).toBe(true);
  });

  it('need one channel for a grey picture and three for another', () => {
    const grey = { ...base, data: base.data.map((_, i) => 3 * Math.floor(i / 3)) };
    for (const [image, colorType] of [
      [grey, 0],
      [base, 2],
    ] as const) {
      const file = encodePlain(image);
      expect(file[25]).toBe(colorType);
      const { data } = PNG.sync.read(file);
      expect(Uint8Array.from(data.filter((_, i) => i % 4 < 3))).toEqual(image.data);
    }
  });
});
