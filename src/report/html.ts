/** HTML as text, with everything escaped that is not HTML already. */

/** A piece of HTML. Only `html` and `trusted` make one. */
export class Html {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a template: texts and numbers are escaped, lists joined; null and false leave nothing. */
export type Content = string | number | Html | null | false | readonly Content[];

/** Text for HTML's content and for attributes in either kind of quotes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

function textOf(content: Content): string {
  if (content === null || content === false) return '';
  if (content instanceof Html) return content.text;
  if (typeof content === 'string' || typeof content === 'number') return escapeHtml(String(content));
  return content.map(textOf).join('');
}

/** A template of HTML: html`<p title="${text}">${parts}</p>`. Attributes must stand in quotes. */
export function html(strings: TemplateStringsArray, ...contents: readonly Content[]): Html {
  return new Html(strings.map((text, i) => text + (i < contents.length ? textOf(contents[i]) : '')).join(''));
}

/** Text that is HTML already, such as a chart's SVG. */
export const trusted = (text: string): Html => new Html(text);
