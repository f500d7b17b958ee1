/** HTML that is safe to show. Made by `markup` alone, so that no text gets into a page as it came. */
export class Markup {
  readonly #html: string;

  private constructor(html: string) {
    this.#html = html;
  }

  static join(texts: readonly string[], parts: readonly MarkupPart[]): Markup {
    return new Markup(texts.map((text, at) => text + render(parts[at])).join(''));
  }

  toString(): string {
    return this.#html;
  }
}

export type MarkupPart = string | number | Markup | readonly Markup[] | null | undefined;

/** `` markup`<p>${text}</p>` ``: what is put in shows as text, be it in an element or in a quoted attribute. */
export function markup(texts: TemplateStringsArray, ...parts: readonly MarkupPart[]): Markup {
  return Markup.join(texts, parts);
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function render(part: MarkupPart): string {
  if (part === null || part === undefined) return '';
  if (part instanceof Markup) return part.toString();
  if (typeof part === 'object') return part.map(String).join('');
  return String(part).replace(/[&<>"']/g, (sign) => entities[sign] ?? '');
}
