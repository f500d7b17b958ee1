import { errorRow, toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { limitKeyOf } from '../../data-plane/address.ts';
import type { Services } from '../services.ts';
import { markup, type Markup } from './markup.ts';
import { replyPage } from './layout.ts';
import { reply, type WebRequest, type WebRoute } from './request.ts';

/** A route of pages: what it throws is told on a page, too. */
export function pageRoute(prefix: string, answer: WebRoute['answer']): WebRoute {
  return {
    prefix,
    answer: async (services, web) => {
      try {
        if (!services.pageThrottle.take(limitKeyOf(web.address), services.clock.nowMs())) {
          throw new ZtnaError('ERR_LIMIT_RATE', { reason: 'pages_throttled' });
        }
        await answer(services, web);
      } catch (error) {
        replyError(services, web, error);
      }
    },
  };
}

/** Tells what went wrong, in the words of the table and of whoever refused it. */
export function replyError(services: Services, web: WebRequest, error: unknown): void {
  const { code, message, hint, cause } = toZtnaError(error);
  if (code === 'ERR_INTERNAL') {
    const detail = cause instanceof Error ? (cause.stack ?? cause.message) : message;
    services.logger.error('page_failed', { path: web.url.pathname, error: detail });
  }
  const advice = hint === undefined ? null : sentence(hint.replace(/^fix: /, ''));
  if (web.request.headers.accept === 'application/json') {
    const text = advice ?? sentence(errorRow(code).publicText); // our script shows it
    reply(web.response, statusOf(error), 'text/plain; charset=utf-8', text);
    return;
  }
  replyPage(services, web, statusOf(error), {
    title: 'That did not work',
    body: markup`<section class="card">
<h1>That did not work</h1>
<p role="alert">${sentence(errorRow(code).publicText)}</p>
${advice === null ? null : markup`<p>${advice}</p>`}
${backFrom(web.url.pathname)}
</section>`,
  });
}

/** Where a person goes on; a sign-in that was refused is open still. */
function backFrom(path: string): Markup | null {
  const signIn = /^\/sign-in\/[A-Za-z0-9_-]{22}/.exec(path)?.[0];
  if (signIn !== undefined) {
    return markup`<p class="actions"><a class="button" href="${signIn}">Sign in another way</a></p>`;
  }
  if (!path.startsWith('/account')) return null;
  return markup`<p class="actions"><a class="button" href="/account">Your account</a></p>`;
}

/** The HTTP status of an error: close codes are made after them. */
export function statusOf(error: unknown): number {
  const { code } = toZtnaError(error);
  if (code === 'ERR_CONFIG_NOT_FOUND') return 404;
  const status = errorRow(code).closeCode - 4_000;
  if (status === 401) return 403; // a browser would ask for a password itself
  return status >= 400 && status < 600 ? status : 400;
}

/** A word of the table as a sentence. */
export function sentence(text: string): string {
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}
