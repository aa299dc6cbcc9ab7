import type { BindingType } from './program.ts';

/*
 * Programs are written once, for arrays of float32. Where one is given an array of float16 its text is changed instead: what is read is
 * widened to float32 at once and what is written is rounded, so that all arithmetic stays float32.
 *   x[at]            →  f32(x[at])
 *   x[at] = value;   →  x[at] = f16(value);
 *   x[at] += value;  →  x[at] = f16(f32(x[at]) + (value));
 * A binding is meant wherever its name stands before a bracket, so a program must not give that name to an array of its own.
 */
const HALF_TYPES: Partial<Record<BindingType, { half: string; wide: string }>> = {
  f32: { half: 'f16', wide: 'f32' },
  vec2f: { half: 'vec2h', wide: 'vec2f' },
  vec4f: { half: 'vec4h', wide: 'vec4f' },
};

/** The WGSL type of halves that stands for a type of floats; undefined where a binding takes no floats. */
export function halfType(type: BindingType): string | undefined {
  return HALF_TYPES[type]?.half;
}

/** The index of the bracket that closes the one at `open`. */
function closingBracket(code: string, open: number): number {
  let depth = 0;
  for (let at = open; at < code.length; at++) {
    if (code[at] === '[') depth++;
    else if (code[at] === ']' && --depth === 0) return at;
  }
  throw new Error(`A bracket is not closed in: ${code.slice(open, open + 60)}`);
}

/**
 * Changes the text of a program so that the named bindings hold halves.
 * @param types the declared types, floats all, by the names of these bindings
 */
export function widenHalves(code: string, types: ReadonlyMap<string, BindingType>): string {
  if (types.size === 0) return code;
  const names = new RegExp(`(?<![\\w.])(${[...types.keys()].join('|')})\\[`, 'g');
  const assignment = /\s*([-+*/]?)=(?!=)/y;
  const rewrite = (text: string): string => {
    let out = '';
    let at = 0;
    for (const match of text.matchAll(names)) {
      // Inside what has been rewritten already.
      if (match.index < at) continue;
      const [{ length }, name] = match;
      const { half, wide } = HALF_TYPES[types.get(name) as BindingType] as { half: string; wide: string };
      const open = match.index + length - 1;
      const close = closingBracket(text, open);
      const place = `${name}[${rewrite(text.slice(open + 1, close))}]`;
      out += text.slice(at, match.index);
      assignment.lastIndex = close + 1;
      const assigned = assignment.exec(text);
      if (assigned) {
        const first = assignment.lastIndex;
        const end = text.indexOf(';', first);
        const value = rewrite(text.slice(first, end)).trim();
        out += `${place} = ${half}(${assigned[1] ? `${wide}(${place}) ${assigned[1]} (${value})` : value})`;
        at = end;
      } else {
        out += `${wide}(${place})`;
        at = close + 1;
      }
    }
    return out + text.slice(at);
  };
  return rewrite(code.replace(/\/\/[^\n]*/g, ''));
}
