import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  bundlePath,
  decodeMessage,
  encodeMessage,
  enrolAnswer,
  enrolPath,
  enrolRefusal,
  enrolRequest,
  joinAnswer,
  joinPath,
  joinRequest,
  errorRow,
  maxEnrolmentBytes,
  renewAnswer,
  renewPath,
  renewRequest,
  toZtnaError,
  ZtnaError,
} from '../../../protocol/index.ts';
import { limitKeyOf } from '../../data-plane/address.ts';
import type { Services } from '../services.ts';
import { enrolIdentity } from './enrol.ts';
import { joinControlPlane } from './join.ts';
import { renewIdentity } from './renew.ts';

/** Answers a request of ALPN `ztna-enrol/1`. What is refused is audited, and told as a code of the table. */
export async function answerEnrolment(
  services: Services,
  address: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { method, url } = request;
  try {
    if (method === 'GET' && url === bundlePath) {
      reply(response, 200, 'text/plain; charset=utf-8', services.bundle.statement);
      return;
    }
    if (method !== 'POST' || (url !== enrolPath && url !== renewPath && url !== joinPath)) {
      reply(response, 404, 'text/plain; charset=utf-8', 'not found\n');
      return;
    }
    if (!services.enrolmentThrottle.take(limitKeyOf(address), services.clock.nowMs())) {
      throw new ZtnaError('ERR_LIMIT_RATE', { reason: 'enrolment_throttled' });
    }
    const body = await readBody(request);
    const text =
      url === joinPath
        ? encodeMessage(
            joinAnswer,
            await joinControlPlane(services, decodeMessage(joinRequest, body, maxEnrolmentBytes)),
          )
        : url === enrolPath
          ? encodeMessage(
              enrolAnswer,
              await enrolIdentity(
                services,
                decodeMessage(enrolRequest, body, maxEnrolmentBytes),
                address,
              ),
            )
          : encodeMessage(
              renewAnswer,
              await renewIdentity(services, decodeMessage(renewRequest, body, maxEnrolmentBytes)),
            );
    reply(response, 200, 'application/json', text);
  } catch (error) {
    await refuse(services, address, url ?? '', response, toZtnaError(error));
  }
}

async function refuse(
  services: Services,
  address: string,
  path: string,
  response: ServerResponse,
  error: ZtnaError,
): Promise<void> {
  const { refusals, logger } = services;
  const { code, message, hint, reason, cause } = error;
  if (code === 'ERR_INTERNAL') {
    logger.error('enrolment_failed', {
      error: message,
      cause: cause instanceof Error ? (cause.stack ?? cause.message) : null,
    });
  }
  const { closeCode, publicText } = errorRow(code);
  const status = closeCode - 4_000;
  const advice = hint === undefined ? '' : `; ${hint.replace(/^fix: /, '')}`;
  const text = encodeMessage(enrolRefusal, {
    code,
    message: code === 'ERR_INTERNAL' ? null : `${publicText}${advice}`.slice(0, 500),
  });
  reply(response, status >= 400 && status < 600 ? status : 400, 'application/json', text);
  await refusals.record(address, {
    actor: `address:${address}`,
    action:
      path === renewPath
        ? 'certificate.renew'
        : path === joinPath
          ? 'control_plane.join'
          : 'identity.enrol',
    subject: address,
    details: { code, reason: reason ?? null },
  });
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxEnrolmentBytes) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'request_cut', cause }); // the client left
  }
  return Buffer.concat(chunks);
}

function reply(response: ServerResponse, status: number, type: string, text: string): void {
  if (response.destroyed) return;
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    connection: 'close',
  });
  response.end(text);
}
