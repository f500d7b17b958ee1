import { createHash } from 'node:crypto';

/** What the person at the browser reads once the browser has come back to the command. */
export interface AnswerPage {
  readonly status: number;
  readonly title: string;
  readonly text: string;
}

export const donePage: AnswerPage = {
  status: 200,
  title: 'You are signed in',
  text: 'You may close this window and go back to your terminal.',
};

export const strangerPage: AnswerPage = {
  status: 404,
  title: 'This is not the sign-in that this machine began',
  text: 'Nothing has happened. If somebody sent you the link, do not use it; else begin again in your terminal.',
};

const style =
  ':root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1.5rem}h1{font-size:1.4rem}';
const styleHash = createHash('sha256').update(style).digest('base64');

/** Of every page here: no script, nothing from elsewhere, kept nowhere, and its address told to nobody. */
export const answerHeaders: Readonly<Record<string, string>> = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': `default-src 'none'; style-src 'sha256-${styleHash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  connection: 'close',
};

/** The page as HTML. What it says may come from elsewhere. */
export function renderAnswer({ title, text }: AnswerPage): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(title)}</title><style>${style}</style><main><h1>${escapeHtml(title)}</h1><p>${escapeHtml(text)}</p></main></html>\n`;
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? '');
}
