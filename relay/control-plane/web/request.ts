import type { IncomingMessage, ServerResponse } from 'node:http';
import { ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';

/** One request of a browser, or of another system that is no agent. */
export interface WebRequest {
  /** The client address, as far as the front door knows it. */
  readonly address: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What was asked for; host and scheme are this deployment's own, whatever the request says. */
  readonly url: URL;
}

/** Who answers requests whose path begins so. */
export interface WebRoute {
  readonly prefix: string;
  readonly answer: (services: Services, web: WebRequest) => Promise<void>;
}

/** The body of a request, of at most so many bytes. Throws ERR_MESSAGE_TOO_LARGE, ERR_MESSAGE_MALFORMED (`request_cut`). */
export async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) {
    throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
  }
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'request_cut', cause });
  }
  return Buffer.concat(chunks);
}

/** Answers with a whole body. Nothing is kept by anybody, and nothing may be loaded, framed or sent anywhere. */
export function reply(
  response: ServerResponse,
  status: number,
  type: string,
  body: string | Buffer,
  headers: Readonly<Record<string, string | string[]>> = {},
): void {
  if (response.destroyed || response.headersSent) return;
  response.writeHead(status, {
    'content-security-policy':
      "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
    'strict-transport-security': 'max-age=31536000',
    ...headers,
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  });
  response.end(body);
}
