import type { WebRequest } from './request.ts';

/** Of a browser that is signed in to its user's own page. */
export const sessionCookie = '__Host-ztna';
/** Of a browser that is on its way there. */
export const beginCookie = '__Host-ztna-begin';

/** What an enrolled device says of its user, who opened the page from there. */
export const deviceCookie = '__Host-ztna-device';
/** Of a browser that somebody has signed in with. */
export const knownCookie = '__Host-ztna-known';

/** What the browser keeps by that name. */
export function readCookie({ request }: WebRequest, name: string): string | undefined {
  const found = (request.headers.cookie ?? '')
    .split(';')
    .map((pair) => pair.trim())
    .find((pair) => pair.startsWith(`${name}=`));
  return found?.slice(name.length + 1);
}

/**
 * The header that has a browser keep something for this host alone, out of reach of scripts. A `lax` one comes along when another
 * site sends the browser here, as providers do; a strict one never.
 */
export function cookie(
  name: string,
  value: string,
  lifeMs: number,
  sameSite: 'Strict' | 'Lax' = 'Strict',
): string {
  const age = String(Math.floor(lifeMs / 1000));
  return `${name}=${value}; Path=/; Max-Age=${age}; Secure; HttpOnly; SameSite=${sameSite}`;
}

/** Puts such a header on the answer, whatever that will be. */
export function setCookie({ response }: Pick<WebRequest, 'response'>, header: string): void {
  response.appendHeader('set-cookie', header);
}

/** The header that has a browser forget it. */
export function forgetCookie(name: string): string {
  return cookie(name, '', 0);
}
