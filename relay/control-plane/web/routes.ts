import type { IncomingMessage, ServerResponse } from 'node:http';
import { toZtnaError } from '../../../protocol/index.ts';
import { scimRoute } from '../scim/route.ts';
import type { Services } from '../services.ts';
import { accountRoute } from './account-page.ts';
import { assetRoute } from './assets.ts';
import { enrolRoute } from './enrol-page.ts';
import { landingRoute } from './landing.ts';
import { oidcRoute } from './oidc-route.ts';
import { reply, type WebRoute } from './request.ts';
import { signInRoute } from './sign-in-page.ts';

/** The first whose prefix fits answers. */
const routes: readonly WebRoute[] = [
  assetRoute,
  signInRoute,
  accountRoute,
  enrolRoute,
  oidcRoute,
  scimRoute,
  landingRoute,
];

/** Answers a request of a browser or of another system; false for one that nobody here knows. */
export function answerWeb(
  services: Services,
  address: string,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  const base = services.settings.url;
  const path = request.url ?? '';
  if (!path.startsWith('/') || !URL.canParse(path, base)) return false;
  const url = new URL(path, base);
  if (url.origin !== new URL(base).origin) return false; // `//elsewhere/…`
  const route = routes.find(({ prefix }) => url.pathname.startsWith(prefix));
  if (!route) return false;
  route.answer(services, { address, request, response, url }).catch((error: unknown) => {
    const { code, message, cause } = toZtnaError(error);
    const detail = cause instanceof Error ? (cause.stack ?? cause.message) : message;
    services.logger.error('web_failed', { path: url.pathname, code, error: detail });
    reply(response, 500, 'text/plain; charset=utf-8', 'something went wrong here; try again\n');
  });
  return true;
}
