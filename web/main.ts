/** The page: weights and a picture in, outlined cells and their counts out. Nothing leaves the computer. */
import { UserError } from '../src/cli/errors.ts';
import type { RgbImage } from '../src/data/png.ts';
import { classColour, drawInstances } from '../src/eval/overlay.ts';
import type { SelectedInstance } from '../src/eval/selectInstances.ts';
import { openDevice } from '../src/gpu/browserAdapter.ts';
import { GpuError } from '../src/gpu/gpu.ts';
import { blobSource } from '../src/model/checkpoints/byteSource.ts';
import { Device } from '../src/tensor/device.ts';
import { Detector, type Found } from './detector.ts';
import { decodePicture, showPicture } from './picture.ts';

/** Outlines are drawn on at least this many pixels, so that they stay thin on small pictures. */
const DRAWN_WIDTH = 1200;
/** Files that are taken for weights; all others for pictures. */
const WEIGHTS = /\.(safetensors|pth|pt|bin)$/i;

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no element #${id}.`);
  return found as T;
}

const canvas = element<HTMLCanvasElement>('picture');
const status = element('status');
const classList = element<HTMLUListElement>('classes');
const outlines = element<HTMLInputElement>('outlines');
const tip = element('tip');

let device: Device | null = null;
let detector: Detector | null = null;
let picture: { name: string; image: RgbImage } | null = null;
let found: Found | null = null;
const hidden = new Set<number>();

function say(text: string, kind: 'ready' | 'busy' | 'error' = 'ready'): void {
  status.textContent = text;
  status.dataset.kind = kind;
}

/** Lets the browser paint before work that blocks it. */
function painted(): Promise<void> {
  return new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
}

function visible(): SelectedInstance[] {
  return outlines.checked && found ? found.instances.filter(({ label }) => !hidden.has(label)) : [];
}

function draw(): void {
  if (!picture) return;
  const scale = Math.max(1, Math.ceil(DRAWN_WIDTH / picture.image.width));
  showPicture(canvas, drawInstances(picture.image, visible(), { scale, scores: false }));
  document.body.classList.add('has-picture');
}

function listClasses(): void {
  const names = detector?.info.classes ?? [];
  classList.replaceChildren(
    ...names.map((name, i) => {
      const label = i + 1;
      const row = document.createElement('label');
      const box = document.createElement('input');
      box.type = 'checkbox';
      box.checked = !hidden.has(label);
      box.addEventListener('change', () => {
        if (box.checked) hidden.delete(label);
        else hidden.add(label);
        draw();
      });
      const swatch = document.createElement('span');
      swatch.className = 'swatch';
      swatch.style.background = `rgb(${classColour(label)})`;
      const text = document.createElement('span');
      text.textContent = name;
      const count = document.createElement('b');
      count.textContent = found ? String(found.instances.filter((cell) => cell.label === label).length) : '–';
      row.append(box, swatch, text, count);
      const item = document.createElement('li');
      item.dataset.class = name;
      item.append(row);
      return item;
    }),
  );
  element('total').textContent = found ? String(found.instances.length) : '–';
  element<HTMLButtonElement>('save').disabled = !picture;
}

async function loadWeights(file: File): Promise<void> {
  if (!device) return;
  say(`Reading ${file.name} …`, 'busy');
  const next = await Detector.load(device, blobSource(file, file.name));
  detector?.dispose();
  detector = next;
  found = null;
  hidden.clear();
  const { config, epoch } = next.info;
  const millions = (next.parameterCount / 1e6).toFixed(1);
  element('weights-info').textContent =
    `${file.name}: ${config.block === 'basic' ? 'small' : 'ResNet-50'} network, ${millions} million parameters, ${epoch} epochs`;
  element('weights-info').title = next.notes.join(' ');
  element('weights-card').classList.add('done');
}

async function loadPicture(file: File): Promise<void> {
  say(`Reading ${file.name} …`, 'busy');
  const image = await decodePicture(file, file.name);
  picture = { name: file.name, image };
  found = null;
  element('picture-info').textContent = `${file.name}: ${image.width} × ${image.height} pixels`;
  element('picture-card').classList.add('done');
}

async function detect(): Promise<void> {
  draw();
  listClasses();
  if (!detector || !picture) {
    say(detector ? 'Now choose a picture.' : 'Now choose the weights.');
    return;
  }
  say('Looking for cells …', 'busy');
  await painted();
  found = await detector.detect(picture.image, picture.name);
  draw();
  listClasses();
  element('time').textContent = `${found.seconds.toFixed(found.seconds < 10 ? 2 : 1)} s`;
  const cells = found.instances.length;
  say(cells === 0 ? 'No cell passed the thresholds.' : `${cells} ${cells === 1 ? 'cell' : 'cells'} found.`);
}

function tell(error: unknown): void {
  // Only these are sentences for a reader; anything else is a defect, and its stack belongs into the console.
  if (error instanceof UserError || error instanceof GpuError) say(error.message, 'error');
  else {
    say(`Something went wrong: ${String(error)}`, 'error');
    console.error(error);
  }
}

/** The device does one thing at a time: what is asked for meanwhile waits its turn. */
let turn: Promise<void> = Promise.resolve();
function enqueue(work: () => Promise<void>): void {
  turn = turn.then(work).catch(tell);
}

function take(files: Iterable<File>): void {
  const given = [...files];
  if (given.length === 0) return;
  enqueue(async () => {
    if (!device) return;
    for (const file of given) {
      if (WEIGHTS.test(file.name)) await loadWeights(file);
      else await loadPicture(file);
    }
    await detect();
  });
}

function chooser(id: string): void {
  const input = element<HTMLInputElement>(id);
  input.addEventListener('change', () => {
    take(input.files ?? []);
    // The same file can then be chosen again.
    input.value = '';
  });
}

/** Name and score of the cell under the pointer. */
function point(event: PointerEvent): void {
  const box = canvas.getBoundingClientRect();
  const cell =
    picture &&
    visible().find(({ mask }) => {
      const x = Math.floor(((event.clientX - box.left) / box.width) * picture!.image.width) - mask.x;
      const y = Math.floor(((event.clientY - box.top) / box.height) * picture!.image.height) - mask.y;
      return x >= 0 && y >= 0 && x < mask.width && y < mask.height && mask.data[y * mask.width + x] > 0;
    });
  tip.hidden = !cell;
  if (!cell || !detector) return;
  tip.textContent = `${detector.info.classes[cell.label - 1]} ${cell.score.toFixed(2)}`;
  tip.style.left = `${event.clientX}px`;
  tip.style.top = `${event.clientY}px`;
}

function save(): void {
  canvas.toBlob((blob) => {
    if (!blob || !picture) return;
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `${picture.name.replace(/\.[^.]*$/, '')}-cells.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  }, 'image/png');
}

chooser('weights');
chooser('image');
outlines.addEventListener('change', draw);
canvas.addEventListener('pointermove', point);
canvas.addEventListener('pointerleave', () => {
  tip.hidden = true;
});
element('save').addEventListener('click', save);
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dragging');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dragging');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dragging');
  take(event.dataTransfer?.files ?? []);
});

enqueue(async () => {
  const opened = await openDevice();
  device = new Device(opened);
  void opened.device.lost.then(({ message }) =>
    tell(new GpuError('lost', `The device was lost: ${message} Reload the page.`)),
  );
  element('adapter').textContent = opened.info.name;
  element('adapter').title = opened.why;
  say('Choose weights and a picture, or drop both anywhere on the page.');
});
