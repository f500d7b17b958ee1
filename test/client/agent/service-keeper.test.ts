import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createLogger } from '../../../protocol/host/index.ts';
import { newId, ZtnaError, type SessionFacts } from '../../../protocol/index.ts';
import type { Agent } from '../../../client/agent/agent.ts';
import { ServiceKeeper } from '../../../client/agent/service-keeper.ts';

const hourMs = 3_600_000;

function sessionOf(leftMs: number): SessionFacts {
  const nowMs = Date.now();
  return {
    session: newId('session'),
    user: 'ci',
    methods: ['key'],
    signedInAtMs: nowMs + leftMs - hourMs,
    untilMs: nowMs + leftMs,
  };
}

/** A keeper whose relay answers what `answer` does, and how often it was asked to sign in. */
function keep(
  t: ExecutionContext,
  answer: () => SessionFacts = () => sessionOf(hourMs),
  file?: string,
) {
  const dir = mkdtempSync(join(tmpdir(), 'ztna-service-'));
  const key = join(dir, 'ci.key');
  const { privateKey } = generateKeyPairSync('ed25519');
  writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  const asked: string[] = [];
  const lines: string[] = [];
  const request = (message: { readonly type: string }): Promise<unknown> => {
    asked.push(message.type);
    if (message.type === 'service_challenge') {
      return Promise.resolve({
        type: 'service_nonce',
        nonce: Buffer.alloc(32).toString('base64url'),
      });
    }
    return new Promise((resolve) => {
      resolve({ type: 'signed_in', session: answer() });
    });
  };
  const stopping = new AbortController();
  t.teardown(() => {
    stopping.abort();
    rmSync(dir, { recursive: true });
  });
  const keeper = new ServiceKeeper({
    account: {
      service: 'ci',
      device: newId('device'),
      proof: { kind: 'key', file: file ?? key },
    },
    agent: { request } as unknown as Pick<Agent, 'request'>,
    clock: { nowMs: () => Date.now() },
    logger: createLogger({ program: 'test', level: 'debug', write: (line) => lines.push(line) }),
    signal: stopping.signal,
  });
  return { keeper, asked, lines };
}

const signIn = ['service_challenge', 'service_sign_in'];

test('ServiceKeeper - signs in where nobody is signed in, and lets be what lasts', async (t) => {
  const first = keep(t);
  await first.keeper.start(null);
  t.deepEqual(first.asked, signIn);
  const second = keep(t);
  await second.keeper.start(sessionOf(0.9 * hourMs));
  t.deepEqual(second.asked, []);
  const third = keep(t);
  await third.keeper.start(sessionOf(0.2 * hourMs));
  t.deepEqual(third.asked, signIn, 'little is left of it');
});

test('ServiceKeeper - a refusal or a missing file is logged, and no reason to fail', async (t) => {
  const refused = keep(t, () => {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED');
  });
  await refused.keeper.start(null);
  t.regex(refused.lines.join(), /service_sign_in_failed.*ERR_IDENTITY_SIGN_IN_REFUSED/);
  const missing = keep(t, undefined, '/nowhere/at/all');
  await missing.keeper.start(null);
  t.deepEqual(missing.asked, []);
  t.regex(missing.lines.join(), /service_sign_in_failed.*ERR_CONFIG_NOT_FOUND/);
});

test('ServiceKeeper - signs in once for all who are refused for the lack of it, and asks again', async (t) => {
  const { keeper, asked } = keep(t);
  let isSignedIn = false;
  const ask = (): Promise<string> => {
    if (isSignedIn) return Promise.resolve('permit');
    return Promise.reject(new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED'));
  };
  const all = Promise.all([keeper.retry(ask), keeper.retry(ask), keeper.retry(ask)]);
  isSignedIn = true;
  t.deepEqual(await all, ['permit', 'permit', 'permit']);
  t.deepEqual(asked, signIn);
  const denied = () => Promise.reject(new ZtnaError('ERR_POLICY_DENIED'));
  t.like(await t.throwsAsync(keeper.retry(denied)), { code: 'ERR_POLICY_DENIED' });
  t.deepEqual(asked, signIn, 'no sign-in mends that');
});
