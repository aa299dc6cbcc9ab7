/** ImageJ's binary .roi format, version 228, big-endian (`ij/io/RoiEncoder.java`, `RoiDecoder.java` of ImageJ 1.52i and later). */
import type { MaskPolygon } from '../../eval/contours.ts';

const HEADER = 64;
const VERSION = 228;
/** Types of region: a rectangle's with a `shape size` means composite. */
const RECT = 1;
const TRACED = 8;
/** Segments of a composite's path (`java.awt.geom.PathIterator`). */
const MOVE_TO = 0;
const LINE_TO = 1;
const CLOSE = 4;
/** Coordinates are 16-bit. */
const LARGEST = 32767;

/** What a region says beside its outline. */
export interface RoiOptions {
  name: string;
  /** Slice of the stack that it belongs to, from 1; 0 for all. */
  position: number;
  /** Red, green, blue 0 … 255 of the outline. */
  colour: readonly [number, number, number];
  /** ImageJ's properties: texts by key. */
  properties?: Readonly<Record<string, string>>;
}

/** Two bytes a character, without an end mark. */
function putText(view: DataView, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) view.setUint16(at + 2 * i, text.charCodeAt(i));
}

/**
 * A region as ImageJ saves it: `traced` (what its wand makes: the outline along the pixels' edges) for one part without holes, else
 * a composite of all outlines, whose inside follows from the rings' opposite senses.
 *
 * @param polygons in pixels of the image, at least one
 * @returns the bytes of a .roi file
 * @throws Error for an outline that leaves 0 … 32767
 */
export function encodeRoi(polygons: readonly MaskPolygon[], options: RoiOptions): Uint8Array {
  const rings = polygons.flatMap(({ exterior, holes }) => [exterior, ...holes]);
  const [left, top, right, bottom] = boundsOf(rings);
  if (!(left >= 0 && top >= 0 && right <= LARGEST && bottom <= LARGEST)) {
    throw new Error(`encodeRoi: an outline from (${left}, ${top}) to (${right}, ${bottom}) leaves 0 … ${LARGEST}`);
  }
  const points = rings[0].length / 2;
  const traced = rings.length === 1 && points <= LARGEST;
  const path = traced ? [] : compositePath(rings);
  const bodyBytes = traced ? 4 * points : 4 * path.length;

  const { name, position, colour, properties = {} } = options;
  const props = Object.entries(properties)
    .map(([key, value]) => `${key}: ${value}\n`)
    .join('');
  const header2 = HEADER + bodyBytes;
  const nameAt = header2 + HEADER;
  const propsAt = nameAt + 2 * name.length;
  const view = new DataView(new ArrayBuffer(propsAt + 2 * props.length));

  view.setUint32(0, 0x496f7574); // "Iout"
  view.setInt16(4, VERSION);
  view.setUint8(6, traced ? TRACED : RECT);
  view.setInt16(8, top);
  view.setInt16(10, left);
  view.setInt16(12, bottom);
  view.setInt16(14, right);
  view.setUint16(16, traced ? points : 0);
  view.setInt32(36, path.length);
  view.setUint32(40, (0xff000000 | (colour[0] << 16) | (colour[1] << 8) | colour[2]) >>> 0);
  view.setInt32(56, position);
  view.setInt32(60, header2);
  if (traced) {
    // All x, then all y, from the corner of the box.
    for (let i = 0; i < points; i++) {
      view.setInt16(HEADER + 2 * i, rings[0][2 * i] - left);
      view.setInt16(HEADER + 2 * (points + i), rings[0][2 * i + 1] - top);
    }
  } else {
    path.forEach((value, i) => {
      view.setFloat32(HEADER + 4 * i, value);
    });
  }
  view.setInt32(header2 + 16, nameAt);
  view.setInt32(header2 + 20, name.length);
  putText(view, nameAt, name);
  if (props !== '') {
    view.setInt32(header2 + 40, propsAt);
    view.setInt32(header2 + 44, props.length);
    putText(view, propsAt, props);
  }
  return new Uint8Array(view.buffer);
}

function boundsOf(rings: readonly Int32Array[]): [left: number, top: number, right: number, bottom: number] {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      left = Math.min(left, ring[i]);
      right = Math.max(right, ring[i]);
      top = Math.min(top, ring[i + 1]);
      bottom = Math.max(bottom, ring[i + 1]);
    }
  }
  return [left, top, right, bottom];
}

/** In coordinates of the image, unlike those of a traced region. */
function compositePath(rings: readonly Int32Array[]): number[] {
  const path: number[] = [];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) path.push(i === 0 ? MOVE_TO : LINE_TO, ring[i], ring[i + 1]);
    path.push(CLOSE);
  }
  return path;
}
