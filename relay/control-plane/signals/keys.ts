import { open } from 'node:fs/promises';
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type JSONWebKeySet,
  type JWTVerifyGetKey,
} from 'jose';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { keyCacheMs, keyCoolDownMs, maxOutsideBytes, outsideTimeoutMs } from './limits.ts';
import { checkUrl, fetchOutside, type OutsideRequest } from './outside-fetch.ts';
import type { ReceiveSettings } from '../../signal-settings.ts';

/** Finds the key that a token names. Throws jose's errors, or ERR_RELAY_UNAVAILABLE while keys cannot be fetched. */
export type KeyFinder = JWTVerifyGetKey;

/**
 * The keys of a transmitter: from a file, read once, or from where it serves them, read when first needed, then every
 * 10 minutes, and for a key that is not known not more often than every 30 s. Throws ERR_CONFIG_* for a file that holds none.
 */
export async function openKeys(settings: ReceiveSettings['keys']): Promise<KeyFinder> {
  if ('file' in settings) {
    const text = await readSmallFile(settings.file);
    try {
      return createLocalJWKSet(JSON.parse(text) as JSONWebKeySet);
    } catch (cause) {
      throw new ZtnaError('ERR_CONFIG_INVALID', {
        message: `${settings.file} holds no JSON Web Key Set`,
        cause,
      });
    }
  }
  const { url, allowPrivate, caFile } = settings;
  return servedKeys({
    url,
    allowPrivate,
    ca: caFile === null ? null : await readSmallFile(caFile),
  });
}

/** Keys from where they are served. Throws ERR_CONFIG_INVALID for an URL that may not be asked. */
export function servedKeys({
  url,
  allowPrivate,
  ca,
}: Required<Pick<OutsideRequest, 'url' | 'allowPrivate' | 'ca'>>): KeyFinder {
  // What failed is remembered for a while too: who sends tokens must not make us ask again and again.
  let failedAtMs = -Infinity;
  const remote = createRemoteJWKSet(checkUrl(url), {
    cooldownDuration: keyCoolDownMs,
    cacheMaxAge: keyCacheMs,
    timeoutDuration: outsideTimeoutMs,
    [customFetch]: async () => {
      if (performance.now() - failedAtMs < failurePauseMs) throw unavailable(url);
      try {
        const answer = await fetchOutside({
          url,
          method: 'GET',
          headers: { accept: 'application/jwk-set+json, application/json' },
          allowPrivate,
          ca,
        });
        if (answer.status !== 200) throw unavailable(url);
        return new Response(answer.text, { status: 200 });
      } catch (error) {
        failedAtMs = performance.now();
        throw error;
      }
    },
  });
  return async (header, token) => {
    try {
      return await remote(header, token);
    } catch (error) {
      // No such key, or several: the token's fault. Whatever else goes wrong here is about fetching.
      if (error instanceof errors.JWKSNoMatchingKey) throw error;
      if (error instanceof errors.JWKSMultipleMatchingKeys) throw error;
      if (error instanceof errors.JOSENotSupported) throw error;
      if (toZtnaError(error).code === 'ERR_RELAY_UNAVAILABLE') throw error;
      throw unavailable(url, error);
    }
  };
}

/** After a failed fetch nobody is asked for so long. */
const failurePauseMs = 2_000;

function unavailable(url: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: `the keys at ${new URL(url).host} cannot be read`,
    reason: 'signal_keys_unavailable',
    cause,
  });
}

/** A file of at most 256 KiB. Throws ERR_CONFIG_NOT_FOUND or ERR_CONFIG_INVALID. */
export async function readSmallFile(path: string): Promise<string> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `cannot read ${path}`, cause });
  }
  try {
    const { size } = await file.stat();
    if (size > maxOutsideBytes) {
      throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} is larger than 256 KiB` });
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}
