import { describe, expect, it } from 'vitest';
import { PickleEnds, type PickleHooks, unpickle } from '../../../src/model/checkpoints/pickle.ts';

const hooks: PickleHooks = {
  global(module, name) {
    if (`${module}.${name}` === 'good.pair') return { name: 'good.pair', call: (args) => ({ pair: [...args] }) };
    if (`${module}.${name}` === 'good.Type') return { name: 'good.Type' };
    throw new Error(`refused ${module}.${name}`);
  },
  persistent: (id) => ({ id }),
};

/** The value of a pickle written with one character a byte. */
function load(text: string, maxValues = 1000): unknown {
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return unpickle(bytes, 0, hooks, { where: 'w.pth', maxValues }).value;
}

describe('the pickle machine', () => {
  it.each<[string, string, unknown]>([
    ['None and truth values', '(N\x88\x89I01\nI00\nt.', [null, true, false, true, false]],
    ['integers', '(K\xffM\x01\x02J\xfe\xff\xff\xffI-3\nL7L\nt.', [255, 513, -2, -3, 7]],
    ['long integers', '(\x8a\x00\x8a\x01\xff\x8a\x02\x00\x01\x8b\x01\x00\x00\x00\x05t.', [0, -1, 256, 5]],
    ['a long beyond the safe integers', '\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40.', 2n ** 62n],
    ['floats', '(G\x3f\xf8\x00\x00\x00\x00\x00\x00F-0.25\nt.', [1.5, -0.25]],
    [
      'strings',
      "(X\x02\x00\x00\x00\xc3\xa9\x8c\x01aU\x01bT\x01\x00\x00\x00cS'd'\nVe\nt.",
      ['é', 'a', 'b', 'c', 'd', 'e'],
    ],
    ['lists', '](K\x01K\x02eK\x03a.', [1, 2, 3]],
    ['tuples', '()K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87t.', [[], [1], [1, 2], [1, 2, 3]]],
    [
      'dicts',
      '}(K\x01N\x8c\x01kNuK\x02Ns.',
      new Map<unknown, null>([
        [1, null],
        ['k', null],
        [2, null],
      ]),
    ],
    ['sets', '\x80\x04\x8f(K\x01K\x02\x90.', [1, 2]],
    ['the memo', '(K\x07q\x00h\x00r\x01\x00\x00\x00j\x01\x00\x00\x00\x94h\x02p9\ng9\nt.', [7, 7, 7, 7, 7]],
    ['a frame', '\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00K\x01.', 1],
    ['popped values', '(K\x01K\x020(K\x03K\x041K\x052t.', [1, 5, 5]],
    ['a call', 'cgood\npair\n(K\x01K\x02tR.', { pair: [1, 2] }],
    ['a call named by the stack', '\x8c\x04good\x8c\x04pair\x93)R.', { pair: [] }],
    ['a persistent id', 'K\x05Q.', { id: 5 }],
    ['attributes of a dict, which are left out', '}\x8c\x01kK\x01s}b.', new Map([['k', 1]])],
  ])('reads %s', (_, text, value) => {
    expect(load(text)).toEqual(value);
  });

  it.each([
    ['an unknown name, even if nothing calls it', 'cos\nsystem\n0N.', 'refused os.system'],
    ['a type that is called', 'cgood\nType\n)R.', 'calls good.Type, which is no function here'],
    ['a call of what is no function', 'K\x01)R.', 'calls what cannot be called'],
    ['the making of objects', 'cgood\nType\n)\x81.', 'the operation 0x81, which no tensors need'],
    ['an instance', '(igood\nType\n.', 'the operation 0x69'],
    ['a registered extension', '\x82\x01.', 'the operation 0x82'],
    ['attributes of a list', ']}b.', 'sets attributes of what has none'],
    ['names that are no text', 'K\x01K\x02\x93.', 'names what is no text'],
    ['an empty stack', '.', 'takes a value that is not there'],
    ['a mark that was not set', 't.', 'closes what it has not opened'],
    ['a memo that was not kept', 'h\x05.', 'recalls value 5 that it has not kept'],
    ['items of a list', ']K\x01K\x02s.', 'sets an item of what is no dict'],
    ['a key without a value', '}(K\x01u.', 'sets an item of what is no dict'],
    ['an appendix to a number', 'K\x01K\x02a.', 'appends to what is no list'],
    ['a text that is no number', 'Ix\n.', 'a text that is no number'],
    ['a number of 100 bytes', `\x8a\x64${'\x01'.repeat(100)}.`, 'a number of 100 bytes'],
    ['a later protocol', '\x80\x06N.', 'protocol 6, expected 2 to 5'],
  ])('refuses %s', (_, text, message) => {
    expect(() => load(text)).toThrow(message);
  });

  it.each(['', 'K', 'X\xff\xff\xff\x7f', '\x8d\xff\xff\xff\xff\xff\xff\xff\xff', 'cgood', 'B\xff\xff\xff\xffab', 'N'])(
    'tells that %j ends in the middle, whatever length it names',
    (text) => {
      expect(() => load(text)).toThrow(PickleEnds);
    },
  );

  it('bounds the values that it makes', () => {
    expect(() => load(`${']'.repeat(101)}.`, 100)).toThrow('far more values in its pickle than weights do');
    expect(() => load(`N${'q\x01'.repeat(101)}.`, 100)).toThrow('far more values');
  });

  it('keeps values that contain themselves', () => {
    const list = load(']q\x00h\x00a.') as unknown[];
    expect(list[0]).toBe(list);
  });
});
