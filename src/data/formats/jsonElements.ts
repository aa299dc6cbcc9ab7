import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { Assembler } from 'stream-json/core/assembler.js';
import { jsonParser, type Token } from 'stream-json/core/parser.js';
import { UserError } from '../../cli/errors.ts';

/** Bytes read at once. */
const BLOCK = 1 << 18;

/** One element at a time: what it is, and its place in its list from 0 (or its key, where the file has an object of them). */
export type ElementReader = (element: unknown, place: number | string) => void;

/**
 * Reads a JSON file of any size whose top level is an object, and hands over the elements of chosen members, one by one in the
 * file's order. A member is a list, or an object that holds its elements by key. Everything else is passed over; memory holds one
 * element and a block of the file. JSON.parse would end at 512 MB, the longest text that Node holds.
 *
 * @param readers by the member's name
 * @param progress called now and then with the bytes read, and all
 * @returns names of the members that were there
 * @throws UserError that names the file where it cannot be read, is no JSON, or its form is another
 */
export function readJsonElements(
  path: string,
  readers: Readonly<Record<string, ElementReader>>,
  progress?: (done: number, total: number) => void,
): Set<string> {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}`);
  }
  try {
    const total = fstatSync(file).size;
    const members = new MemberReader(path, readers);
    const parse = jsonParser({ streamValues: false }) as (text: string | symbol) => { values?: Token[] };
    const decoder = new StringDecoder('utf8');
    const block = Buffer.alloc(BLOCK);
    let read = 0;
    for (let size = readSync(file, block); size > 0; size = readSync(file, block)) {
      const text = decoder.write(block.subarray(0, size));
      // A byte-order mark is no JSON, but editors write it.
      const tokens = attempt(path, read, () => parse(read === 0 ? text.replace(/^\ufeff/, '') : text).values ?? []);
      for (const token of tokens) members.take(token);
      read += size;
      progress?.(read, total);
    }
    if (!members.complete) throw new UserError(`${path} is a truncated JSON file (it ends after ${read} bytes)`);
    return members.seen;
  } finally {
    closeSync(file);
  }
}

function attempt<T>(path: string, at: number, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new UserError(`${path} is not valid JSON after byte ${at} (${(error as Error).message})`);
  }
}

/** Follows the tokens of one file down to the elements. */
class MemberReader {
  readonly seen = new Set<string>();
  /** Whether the top level has been closed. */
  complete = false;
  private depth = 0;
  private member = '';
  private reader: ElementReader | undefined;
  /** The next element's place; keys are taken as they come. */
  private place: number | string = 0;
  private keyed = false;
  private readonly assembler = new Assembler();
  private readonly path: string;
  private readonly readers: Readonly<Record<string, ElementReader>>;

  constructor(path: string, readers: Readonly<Record<string, ElementReader>>) {
    this.path = path;
    this.readers = readers;
  }

  take(token: Token): void {
    const opens = token.name === 'startObject' || token.name === 'startArray';
    const closes = token.name === 'endObject' || token.name === 'endArray';
    if (closes) this.depth--;
    if (this.depth === 0) {
      if (closes) this.complete = true;
      else if (token.name !== 'startObject') throw new UserError(`${this.path} holds no object, expected one`);
    } else if (this.depth === 1) {
      this.takeMember(token, opens || closes);
    } else if (this.reader !== undefined) {
      this.takeElement(token, this.reader);
    }
    if (opens) this.depth++;
  }

  /** At the top level: a member's name, its begin or its end, or a plain value. */
  private takeMember(token: Token, bracket: boolean): void {
    if (token.name === 'keyValue') {
      this.member = token.value;
      this.seen.add(this.member);
      this.reader = Object.hasOwn(this.readers, this.member) ? this.readers[this.member] : undefined;
      this.place = 0;
    } else if (this.reader !== undefined && !bracket) {
      throw new UserError(`${this.path}: "${this.member}" is no list, expected one`);
    }
    if (token.name === 'startObject' || token.name === 'startArray') this.keyed = token.name === 'startObject';
  }

  private takeElement(token: Token, reader: ElementReader): void {
    if (this.depth === 2 && this.keyed && token.name === 'keyValue') {
      this.place = token.value;
      return;
    }
    this.assembler.consume(token);
    if (!this.assembler.done) return;
    reader(this.assembler.current, this.place);
    if (typeof this.place === 'number') this.place++;
  }
}
