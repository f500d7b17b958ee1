import type { ScriptedBrowser, Visit } from './scripted-browser.ts';

/** What a person types on the sign-in page of a relay. */
export interface TypedCredentials {
  readonly user: string;
  readonly password: string;
  readonly otp?: string;
}

/** Goes through the sign-in page at `url` with a password; answers where that ends, be it with a command that listens. */
export async function passSignInPage(
  browser: ScriptedBrowser,
  url: string,
  { user, password, otp }: TypedCredentials,
): Promise<Visit> {
  const page = await browser.follow(url);
  const visit = await browser.follow(page.url, undefined, { step: 'password', user, password });
  const token = /name="token" value="([^"]+)"/.exec(visit.text)?.[1];
  if (token === undefined || otp === undefined) return visit;
  return browser.follow(page.url, undefined, { step: 'otp', token, otp });
}

/** What a page gives the person to carry to a terminal: the value of the field of that id. */
export function shownIn({ text }: Visit, id: string): string {
  const value = new RegExp(`<input id="${id}"[^>]*value="([^"]+)"`).exec(text)?.[1];
  if (value === undefined) throw new Error(`no ${id} on the page:\n${text}`);
  return value;
}
