import type { Services } from '../services.ts';
import { scriptPath, stylePath } from './assets.ts';
import { markup, type Markup } from './markup.ts';
import { reply, type WebRequest } from './request.ts';

/** What a browser is shown. */
export interface Page {
  readonly title: string;
  readonly body: Markup;
  /** Where its forms may lead besides this deployment itself: the command that listens on the person's own machine. */
  readonly formTarget?: string | null;
  /** Where the browser goes on by itself at once. */
  readonly goTo?: string;
}

/** Answers with a page. Nothing of anybody else is loaded by it, and nobody frames it. */
export function replyPage(
  { settings }: Pick<Services, 'settings'>,
  { response }: Pick<WebRequest, 'response'>,
  status: number,
  page: Page,
  headers: Readonly<Record<string, string | string[]>> = {},
): void {
  const { host } = new URL(settings.url);
  const formAction = ["'self'", ...(page.formTarget ? [page.formTarget] : [])].join(' ');
  const html = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>${page.title} · ${host}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${page.goTo === undefined ? null : markup`<meta http-equiv="refresh" content="0;url=${page.goTo}">`}
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${stylePath}">
<script src="${scriptPath}" defer></script>
</head>
<body>
<header class="top"><a class="brand" href="/">${shield}<span>Private applications</span></a></header>
<main>
${page.body}
</main>
<footer>You are at <strong>${host}</strong>. Type a password only where the address bar says so.<br><a href="/account">Your devices and sign-in methods</a></footer>
</body>
</html>
`;
  reply(response, status, 'text/html; charset=utf-8', html.toString(), {
    'content-security-policy': [
      "default-src 'none'",
      "style-src 'self'",
      "script-src 'self'",
      "connect-src 'self'",
      'img-src data:',
      `form-action ${formAction}`,
      "base-uri 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
    // A browser that tells no referrer tells no origin with a form either.
    'referrer-policy': 'same-origin',
    'cross-origin-opener-policy': 'same-origin',
    'x-frame-options': 'DENY',
    ...headers,
  });
}

/** Sends the browser on. */
export function goTo(
  { response }: Pick<WebRequest, 'response'>,
  url: string,
  headers: Readonly<Record<string, string | string[]>> = {},
): void {
  const type = 'text/plain; charset=utf-8';
  reply(response, 303, type, '', { ...headers, location: url, 'referrer-policy': 'no-referrer' });
}

const shield = markup`<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false"><path fill="currentColor" d="M12 1.8 3.5 5v6.2c0 5.2 3.5 9.4 8.5 11 5-1.6 8.5-5.8 8.5-11V5L12 1.8Zm0 5.4a2.6 2.6 0 0 1 1.2 4.9l.6 4h-3.6l.6-4A2.6 2.6 0 0 1 12 7.2Z"/></svg>`;
