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

// As the relay's own pages look: the person has just come from one.
const style = `:root{--ground:#f4f5f8;--card:#fff;--text:#171a21;--quiet:#5b6373;--line:#d9dde5;--mark:#176b3a;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ground:#0f1217;--card:#181c23;--text:#e8ebf1;--quiet:#9aa4b5;--line:#313845;--mark:#7fd6a3}}
body{margin:0;min-height:100vh;display:grid;place-content:center;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{box-sizing:border-box;width:min(30rem,100vw - 2rem);background:var(--card);border:1px solid var(--line);border-top:4px solid var(--mark);border-radius:1rem;padding:1.75rem}
main.bad{border-top-color:#b3261e}p{margin:0;color:var(--quiet);overflow-wrap:anywhere}h1{font-size:1.5rem;line-height:1.25;margin:0 0 .5rem}`;
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
export function renderAnswer({ status, title, text }: AnswerPage): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(title)}</title><style>${style}</style><main${status === 200 ? '' : ' class="bad"'}><h1>${escapeHtml(title)}</h1><p>${escapeHtml(text)}</p></main></html>\n`;
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
