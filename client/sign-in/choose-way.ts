import { ZtnaError } from '../../protocol/index.ts';
import type { Answer } from '../agent/agent-messages.ts';

/** How a user signs in. */
export type SignInWay =
  | { readonly kind: 'password' }
  | {
      readonly kind: 'elsewhere';
      readonly method: 'browser' | 'device_code';
      readonly provider: string | null;
    };

/** What the person asked for. */
export interface AskedWay {
  readonly provider: string | undefined;
  readonly isDeviceCode: boolean;
  /** True for the sign-in page in a browser, be it of another machine; undefined where that was left open. */
  readonly isByPage: boolean | undefined;
}

type Providers = Pick<Answer<'providers'>, 'isLocal' | 'providers'>;

const local = 'local';
const password: SignInWay = { kind: 'password' };

/**
 * How to sign in, of the ways that there are: as asked, else the only one, else as the last time, else as `ask` answers with a name.
 * Throws ERR_CONFIG_USAGE for what there is not.
 */
export async function chooseWay(
  asked: AskedWay,
  known: Providers,
  last: string | undefined,
  ask: (names: readonly string[]) => Promise<string>,
): Promise<SignInWay> {
  const { providers } = known;
  const names = waysOf(known);
  const { provider, isDeviceCode, isByPage = false } = asked;
  if (provider !== undefined && !names.includes(provider)) throw unknownProvider(names);
  if (isDeviceCode) {
    const able = providers.filter(({ hasDeviceCode }) => hasDeviceCode).map(({ name }) => name);
    const chosen = provider ?? (able.length === 1 ? able[0] : able.find((name) => name === last));
    if (chosen === undefined || !able.includes(chosen)) throw noDeviceCode(able, provider);
    return { kind: 'elsewhere', method: 'device_code', provider: chosen };
  }
  if (provider !== undefined) return wayTo(provider, isByPage);
  // The page itself offers all the ways that there are.
  if (isByPage) {
    const only = names.length === 1 ? names[0] : undefined;
    return byPage(only === undefined || only === local ? null : only);
  }
  const [first] = names;
  if (first === undefined) throw unknownProvider(names);
  if (names.length === 1) return wayTo(first, false);
  if (last !== undefined && names.includes(last)) return wayTo(last, false);
  const answer = await ask(names);
  if (!names.includes(answer)) throw unknownProvider(names);
  return wayTo(answer, false);
}

/** The names of all ways: providers, and `local` for users with a password of this relay. */
export function waysOf({ isLocal, providers }: Providers): string[] {
  return [...providers.map(({ name }) => name), ...(isLocal ? [local] : [])];
}

function wayTo(name: string, isByPage: boolean): SignInWay {
  if (name !== local) return byPage(name);
  return isByPage ? byPage(null) : password;
}

function byPage(provider: string | null): SignInWay {
  return { kind: 'elsewhere', method: 'browser', provider };
}

/** The error of a command that was not told how to sign in and has nobody to ask: it names every way. */
export function mustSay(names: readonly string[]): ZtnaError {
  const ways = names.map((name) =>
    name === local ? 'ztna login --password-stdin' : `ztna login --provider ${name}`,
  );
  return new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'this needs to know how to sign in, and there is no terminal to ask on',
    hint: `say it: ${ways.join(', or ')}`,
    hop: 'client',
  });
}

function unknownProvider(names: readonly string[]): ZtnaError {
  const message = 'this relay has no such way to sign in';
  const hint = names.length === 0 ? 'ask your administrator' : `it has: ${names.join(', ')}`;
  return new ZtnaError('ERR_CONFIG_USAGE', { message, hint, hop: 'client' });
}

function noDeviceCode(able: readonly string[], asked: string | undefined): ZtnaError {
  const [first] = able;
  if (first === undefined || asked !== undefined) {
    return new ZtnaError('ERR_CONFIG_USAGE', {
      message:
        asked === undefined
          ? 'no provider of this relay has sign-in by a device code'
          : `${asked} has no sign-in by a device code`,
      hint: 'on a machine without a browser, use: ztna login --no-browser',
      hop: 'client',
    });
  }
  return new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'several providers have sign-in by a device code',
    hint: able.map((name) => `ztna login --device-code --provider ${name}`).join(', or '),
    hop: 'client',
  });
}
