import { readSecretFile } from '../../../protocol/host/index.ts';
import { ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { openKeys, readSmallFile } from './keys.ts';
import type { ReceivedStream } from './receive.ts';
import { emptyMap, parseSubjectMap } from './subject.ts';
import type { ReceiveSettings } from '../../signal-settings.ts';

/** Reads what a stream's files hold. Throws ERR_CONFIG_*. */
export async function openStream(settings: ReceiveSettings): Promise<ReceivedStream> {
  const { mapFile } = settings.subjects;
  return {
    settings,
    findKey: await openKeys(settings.keys),
    map: mapFile === null ? emptyMap : parseSubjectMap(await readSmallFile(mapFile), mapFile),
  };
}

/** Streams of `relay.yaml` have a row each; those that left it keep theirs, for what they said before. */
export async function registerStreams(
  { store }: Pick<Services, 'store'>,
  names: readonly string[],
): Promise<void> {
  if (names.length === 0) return;
  await store.write(async (tx) => {
    for (const name of names) {
      await tx
        .insertInto('signalStreams')
        .values({
          name,
          lastEventAtMs: null,
          lastVerifiedAtMs: null,
          status: null,
          lastError: null,
          accepted: 0,
          refused: 0,
          poller: null,
          pollUntilMs: 0,
        })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    }
  });
}

/** Notes why a token of the stream was refused, or could not be had. */
export async function noteFailure(
  { store }: Pick<Services, 'store'>,
  name: string,
  error: string,
  isRefusal = true,
): Promise<void> {
  await store.write((tx) =>
    tx
      .updateTable('signalStreams')
      .set((eb) => ({
        lastError: error.slice(0, 200),
        refused: eb('refused', '+', isRefusal ? 1 : 0),
      }))
      .where('name', '=', name)
      .execute(),
  );
}

/**
 * The `authorization` header in a secret file: its text as it is where it holds a space (`Basic …`), else as a bearer
 * token. Throws ERR_CONFIG_* as `readSecretFile` does, and ERR_CONFIG_INVALID for one that is too short to be a secret.
 */
export async function readAuthorization(path: string): Promise<string> {
  const secret = await readSecret(path);
  return secret.includes(' ') ? secret : `Bearer ${secret}`;
}

/** The one line of a secret file, of 16 characters at least. */
export async function readSecret(path: string): Promise<string> {
  const secret = (await readSecretFile(path)).replace(/\r?\n$/, '');
  if (/^[\x21-\x7e][\x20-\x7e]{15,4095}$/.test(secret)) return secret;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${path} must hold one line of at least 16 characters`,
    hint: 'make one: openssl rand -base64 32',
  });
}
