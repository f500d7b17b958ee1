import { ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { readBody, type WebRequest } from './request.ts';

/** No form of ours is larger: a passkey's answer takes a few KiB. */
export const maxFormBytes = 32_768;

/**
 * What a form of ours sent, or JSON of our script. Only a page of this deployment sends here: a browser tells by `Origin` which
 * page it was, and other programs have nothing to gain. Throws ERR_POLICY_DENIED (`origin_other`), ERR_MESSAGE_MALFORMED,
 * ERR_MESSAGE_TOO_LARGE.
 */
export async function readForm(
  { settings }: Pick<Services, 'settings'>,
  { request }: WebRequest,
): Promise<URLSearchParams> {
  refuseOtherOrigin(settings.url, request.headers);
  const type = request.headers['content-type'] ?? '';
  if (!/^application\/x-www-form-urlencoded(?:;|$)/.test(type)) {
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'form_type' });
  }
  return new URLSearchParams((await readBody(request, maxFormBytes)).toString('utf8'));
}

function refuseOtherOrigin(url: string, headers: WebRequest['request']['headers']): void {
  const site = headers['sec-fetch-site'];
  const isOwn = headers.origin === new URL(url).origin;
  if (!isOwn || (site !== undefined && site !== 'same-origin')) {
    throw new ZtnaError('ERR_POLICY_DENIED', {
      reason: 'origin_other',
      hint: 'open the page itself, and use what is on it',
    });
  }
}
