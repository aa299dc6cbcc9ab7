/** Tags of a page; each has the usual value for a grey 8-bit picture of 3 × 2 pixels unless told otherwise. */
export interface TiffTags {
  width?: number;
  height?: number;
  bits?: number[];
  samples?: number;
  photometric?: number;
  compression?: number;
  sampleFormat?: number;
  planar?: number;
  orientation?: number;
  extraSamples?: number;
  subfile?: number;
  colorMap?: number[];
  description?: string;
  /** Where the only strip is said to begin, and how long it is said to be. */
  stripOffset?: number;
  byteCount?: number;
}

/** A page of a file: its strip as stored, and its tags. */
export interface TiffPage {
  data: Buffer;
  tags?: TiffTags;
}

const SHORT = 3;
const LONG = 4;
const ASCII = 2;

/** A little-endian TIFF of one strip a page (TIFF 6.0, section 2), for tests. */
export function tiffFile(data: Buffer, tags: TiffTags = {}, more: TiffPage[] = []): Buffer {
  const parts: Buffer[] = [Buffer.from('II*\0\0\0\0\0', 'latin1')];
  let length = 8;
  const append = (part: Buffer): number => {
    const at = length;
    parts.push(part, Buffer.alloc(part.length % 2));
    length += part.length + (part.length % 2);
    return at;
  };
  // Where the offset of the next page is to be written.
  let link: [Buffer, number] = [parts[0], 4];
  for (const page of [{ data, tags }, ...more]) {
    const strip = append(page.data);
    const entries = pageEntries(page.tags ?? {}, strip, page.data.length);
    const directory = Buffer.alloc(2 + 12 * entries.length + 4);
    directory.writeUInt16LE(entries.length, 0);
    for (const [i, [tag, type, values]] of entries.entries()) {
      const packed = pack(type, values);
      const at = 2 + 12 * i;
      directory.writeUInt16LE(tag, at);
      directory.writeUInt16LE(type, at + 2);
      directory.writeUInt32LE(values.length, at + 4);
      if (packed.length <= 4) packed.copy(directory, at + 8);
      else directory.writeUInt32LE(append(packed), at + 8);
    }
    link[0].writeUInt32LE(append(directory), link[1]);
    link = [directory, directory.length - 4];
  }
  return Buffer.concat(parts);
}

type Entry = [tag: number, type: number, values: number[]];

function pageEntries(tags: TiffTags, strip: number, stripLength: number): Entry[] {
  const { width = 3, height = 2, bits = [8], samples = 1, photometric = 1, compression = 1, sampleFormat = 1 } = tags;
  const optional = (tag: number, type: number, value: number | number[] | undefined): Entry[] =>
    value === undefined ? [] : [[tag, type, [value].flat()]];
  const text = tags.description && [...Buffer.from(`${tags.description}\0`, 'latin1')];
  return [
    ...optional(254, LONG, tags.subfile),
    [256, LONG, [width]],
    [257, LONG, [height]],
    [258, SHORT, bits],
    [259, SHORT, [compression]],
    [262, SHORT, [photometric]],
    ...optional(270, ASCII, text || undefined),
    [273, LONG, [tags.stripOffset ?? strip]],
    ...optional(274, SHORT, tags.orientation),
    [277, SHORT, [samples]],
    [278, LONG, [height]],
    [279, LONG, [tags.byteCount ?? stripLength]],
    ...optional(284, SHORT, tags.planar),
    ...optional(320, SHORT, tags.colorMap),
    ...optional(338, SHORT, tags.extraSamples),
    [339, SHORT, bits.map(() => sampleFormat)],
  ];
}

function pack(type: number, values: number[]): Buffer {
  if (type === ASCII) return Buffer.from(values);
  return Buffer.from((type === SHORT ? Uint16Array : Uint32Array).from(values).buffer);
}
