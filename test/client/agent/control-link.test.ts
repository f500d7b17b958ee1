import test from 'ava';
import { ControlLink } from '../../../client/agent/control-link.ts';
import { createLogger } from '../../../protocol/host/index.ts';
import { ZtnaError, type ErrorCode } from '../../../protocol/index.ts';

class FakeChannel {
  readonly closed: Promise<ZtnaError>;
  readonly #closed = Promise.withResolvers<ZtnaError>();

  constructor() {
    this.closed = this.#closed.promise;
  }

  lose(code: ErrorCode): void {
    this.#closed.resolve(new ZtnaError(code));
  }

  close(): void {
    this.lose('ERR_TUNNEL_CLOSED');
  }
}

const logger = createLogger({ program: 'test', write: () => undefined });

/** Dials what a test lined up; a code fails the dial. After the last it fails as unreachable. */
function dialler(...answers: (ErrorCode | FakeChannel)[]): () => Promise<FakeChannel> {
  return async () => {
    const next = answers.shift() ?? 'ERR_RELAY_UNREACHABLE';
    return next instanceof FakeChannel
      ? Promise.resolve(next)
      : Promise.reject(new ZtnaError(next));
  };
}

test('ControlLink.start - fails with the first dial', async (t) => {
  const dial = dialler('ERR_RELAY_UNREACHABLE', new FakeChannel());
  await t.throwsAsync(ControlLink.start({ dial, logger }), { code: 'ERR_RELAY_UNREACHABLE' });
});

test('ControlLink - dials again after a loss, and a request waits for it', async (t) => {
  const [first, second] = [new FakeChannel(), new FakeChannel()];
  const link = await ControlLink.start({
    dial: dialler(first, 'ERR_RELAY_UNREACHABLE', second),
    logger,
  });
  t.is(await link.channel(), first);
  first.lose('ERR_RELAY_UNREACHABLE');
  await first.closed;
  await Promise.resolve();
  t.is(await link.channel(), second);
  await link.stop();
  t.is(await link.ended, undefined);
});

test('ControlLink - ends when the relay refuses this machine for good', async (t) => {
  const first = new FakeChannel();
  const link = await ControlLink.start({ dial: dialler(first, new FakeChannel()), logger });
  first.lose('ERR_IDENTITY_REVOKED');
  t.is((await link.ended)?.code, 'ERR_IDENTITY_REVOKED');
  await t.throwsAsync(link.channel(), { code: 'ERR_IDENTITY_REVOKED' });
});

for (const code of [
  'ERR_STATEMENT_REFUSED',
  'ERR_MESSAGE_MALFORMED',
  'ERR_MESSAGE_UNEXPECTED',
] as const) {
  test(`ControlLink - a channel that ends with ${code} is replaced, and refuses nothing meanwhile`, async (t) => {
    const [first, second] = [new FakeChannel(), new FakeChannel()];
    const link = await ControlLink.start({ dial: dialler(first, code, second), logger });
    first.lose(code);
    await first.closed;
    await Promise.resolve();
    t.is(await link.channel(), second);
    await link.stop();
    await t.throwsAsync(link.channel(), { code: 'ERR_RELAY_UNREACHABLE' });
  });
}

for (const code of ['ERR_IDENTITY_ROLE', 'ERR_IDENTITY_UNAUTHENTICATED'] as const) {
  test(`ControlLink - whoever answers a later dial in the relay’s place (${code}) ends nothing`, async (t) => {
    const [first, second] = [new FakeChannel(), new FakeChannel()];
    const link = await ControlLink.start({ dial: dialler(first, code, second), logger });
    first.lose('ERR_RELAY_UNREACHABLE');
    await first.closed;
    await Promise.resolve();
    t.is(await link.channel(), second);
    await link.stop();
    t.is(await link.ended, undefined);
    await t.throwsAsync(ControlLink.start({ dial: dialler(code), logger }), { code });
  });
}

test('ControlLink.redial - replaces the channel', async (t) => {
  const [first, second] = [new FakeChannel(), new FakeChannel()];
  const link = await ControlLink.start({ dial: dialler(first, second), logger });
  link.redial();
  await first.closed;
  await Promise.resolve();
  t.is(await link.channel(), second);
  await link.stop();
});

test('ControlLink.stop - lets nobody wait and may be called again', async (t) => {
  const first = new FakeChannel();
  const link = await ControlLink.start({ dial: dialler(first), logger });
  first.lose('ERR_RELAY_UNREACHABLE');
  await first.closed;
  await Promise.resolve();
  const waiting = t.throwsAsync(link.channel());
  await link.stop();
  await link.stop();
  await waiting;
});
