import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { limitKeyOf } from '../../data-plane/address.ts';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { Throttle } from '../listener/throttle.ts';
import type { Services } from '../services.ts';
import type { SignalEffects } from './effects.ts';
import { maxTokenBytes, pushesOfAddress, tokensOfStream } from './limits.ts';
import { receiveSet, type ReceivedStream } from './receive.ts';
import { noteFailure } from './streams.ts';
import { refuseSet, setFaultOf } from './set.ts';

/** Where transmitters push: the name of a stream follows. */
export const pushPath = '/v1/signals/';

export interface PushStream extends ReceivedStream {
  /** The whole `authorization` header that its transmitter sends. */
  readonly authorization: string;
}

/**
 * Receives pushed tokens (RFC 8935): 202 once an event is durable, 400 with a word of the RFC when a token is refused for
 * good, 401 alike for a wrong secret and a stream that there is not, 429 and 503 when it should come again.
 */
export class PushReceiver {
  readonly #services: Services;
  readonly #effects: SignalEffects;
  readonly #streams: ReadonlyMap<string, PushStream>;
  readonly #addresses = new Throttle(pushesOfAddress);
  readonly #tokens = new Throttle(tokensOfStream);

  constructor(services: Services, effects: SignalEffects, streams: readonly PushStream[]) {
    this.#services = services;
    this.#effects = effects;
    this.#streams = new Map(streams.map((stream) => [stream.settings.name, stream]));
  }

  /** Answers a request below `pushPath`. */
  async answer(address: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { clock } = this.#services;
    if (!this.#addresses.take(limitKeyOf(address), clock.nowMs())) {
      reply(response, 429);
      return;
    }
    // Before any byte of the body: strangers make us keep nothing.
    const stream = this.#authenticate(request);
    if (!stream) {
      reply(response, 401, { err: 'authentication_failed', description: 'not authenticated' });
      await this.#recordRefusal(address, 'stream', 'authentication_failed');
      return;
    }
    try {
      if (!this.#tokens.take(stream.settings.name, clock.nowMs())) {
        reply(response, 429);
        return;
      }
      if (request.method !== 'POST') throw refuseSet('invalid_request', 'there is only POST');
      const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
      if (type !== 'application/secevent+jwt') {
        throw refuseSet('invalid_request', 'the body must be application/secevent+jwt');
      }
      const token = (await readBody(request)).trim();
      await receiveSet(this.#services, this.#effects, stream, token);
      reply(response, 202);
    } catch (error) {
      await this.#refuse(address, stream, response, error);
    }
  }

  #authenticate(request: IncomingMessage): PushStream | undefined {
    const name = (request.url ?? '').slice(pushPath.length);
    const stream = this.#streams.get(name);
    const given = request.headers.authorization ?? '';
    // An unknown name is compared with something too, and takes as long.
    const isRight = isEqual(given, stream?.authorization ?? 'Bearer of nothing');
    return isRight ? stream : undefined;
  }

  async #refuse(
    address: string,
    stream: PushStream,
    response: ServerResponse,
    error: unknown,
  ): Promise<void> {
    const { logger } = this.#services;
    const { name } = stream.settings;
    const failure = toZtnaError(error);
    const { code, message, reason } = failure;
    const fault = setFaultOf(failure);
    if (fault === undefined) {
      logger.warn('signal_failed', { stream: name, code, reason: reason ?? null, error: message });
      reply(response, 503);
      return;
    }
    reply(response, 400, { err: fault, description: message.slice(0, 200) });
    await this.#recordRefusal(address, name, fault, message);
    await noteFailure(this.#services, name, `${fault}: ${message}`).catch(() => undefined);
  }

  async #recordRefusal(
    address: string,
    subject: string,
    fault: string,
    message?: string,
  ): Promise<void> {
    await this.#services.refusals.record(address, {
      actor: `address:${address}`,
      action: 'signal.receive',
      subject,
      details: { reason: fault, ...(message === undefined ? {} : { error: message }) },
    });
  }
}

/** Equal or not, in a time that tells nothing of where they differ. */
function isEqual(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

async function readBody(request: IncomingMessage): Promise<string> {
  const tooLarge = () => refuseSet('invalid_request', 'the token is too large');
  if (Number(request.headers['content-length'] ?? 0) > maxTokenBytes) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxTokenBytes) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw refuseSet('invalid_request', 'the request was cut', cause);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function reply(
  response: ServerResponse,
  status: number,
  fault?: { readonly err: string; readonly description: string },
): void {
  if (response.destroyed) return;
  const text = fault === undefined ? '' : JSON.stringify(fault);
  response.writeHead(status, {
    ...(fault === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-language': 'en' }),
    ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    ...(status === 429 || status === 503 ? { 'retry-after': '5' } : {}),
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    connection: 'close',
  });
  response.end(text);
}
