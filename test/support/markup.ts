/** An element of a page, in the order in which they start. */
export interface Element {
  name: string;
  attributes: Record<string, string>;
  /** Texts inside it and inside its children, with references resolved. */
  text: string;
}

const VOID = new Set(['meta', 'link', 'br', 'hr', 'img', 'input']);
const ATTRIBUTE = /\s+([\w:-]+)="([^"<]*)"/gy;

function resolve(text: string): string {
  const bad = /&(?!#\d+;|(?:amp|lt|gt|quot);)/.exec(text);
  if (bad) throw new Error(`a bare & in "${text.slice(bad.index, bad.index + 40)}"`);
  const names: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"' };
  return text.replace(/&(?:#(\d+)|(\w+));/g, (_, code, name) =>
    code ? String.fromCharCode(Number(code)) : names[name],
  );
}

/**
 * Reads a page or drawing strictly: every element is closed in order, every attribute is quoted, and neither < nor & stands bare.
 *
 * @throws Error that tells the first fault
 */
export function readMarkup(markup: string): Element[] {
  const found: Element[] = [];
  const open: Element[] = [];
  let at = markup.startsWith('<!doctype html>') ? '<!doctype html>'.length : 0;
  while (at < markup.length) {
    const next = markup.indexOf('<', at);
    const text = markup.slice(at, next < 0 ? markup.length : next);
    // A style sheet is no text of the page.
    if (open.at(-1)?.name !== 'style') for (const element of open) element.text += resolve(text);
    if (next < 0) break;
    const fault = (what: string): Error => new Error(`${what} at "${markup.slice(next, next + 60)}"`);
    const closing = /<\/([a-zA-Z][\w-]*)\s*>/y;
    closing.lastIndex = next;
    const closed = closing.exec(markup);
    if (closed) {
      if (open.pop()?.name !== closed[1]) throw fault('closes another element');
      at = closing.lastIndex;
      continue;
    }
    const opening = /<([a-zA-Z][\w-]*)/y;
    opening.lastIndex = next;
    const opened = opening.exec(markup);
    if (!opened) throw fault('a bare <');
    const element: Element = { name: opened[1], attributes: {}, text: '' };
    ATTRIBUTE.lastIndex = opening.lastIndex;
    let end = opening.lastIndex;
    for (let match = ATTRIBUTE.exec(markup); match; match = ATTRIBUTE.exec(markup)) {
      if (match[1] in element.attributes) throw fault(`two attributes ${match[1]}`);
      element.attributes[match[1]] = resolve(match[2]);
      end = ATTRIBUTE.lastIndex;
    }
    const finish = /\s*(\/?)>/y;
    finish.lastIndex = end;
    const finished = finish.exec(markup);
    if (!finished) throw fault('an unfinished tag');
    at = finish.lastIndex;
    found.push(element);
    if (finished[1] === '' && !VOID.has(element.name)) open.push(element);
  }
  if (open.length > 0) throw new Error(`<${open.at(-1)?.name}> is never closed`);
  return found;
}
