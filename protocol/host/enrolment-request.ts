import { ZtnaError } from '../errors.ts';
import { enrolmentProtocol } from '../messages/data.ts';
import { enrolRefusal, maxEnrolmentBytes } from '../messages/enrolment.ts';
import { decodeMessage } from '../message.ts';
import { explainDialError, timeoutError } from './dial-error.ts';
import { http } from './http.ts';
import { addressOf } from './relay-address.ts';
import { dialTls, type SecureDial } from './tls.ts';

/** An answer may take as long as hashing a password does on a busy machine. */
const answerTimeoutMs = 20_000;

/** A bundle with every key and CA it may hold is larger than an enrolment message. */
const maxAnswerBytes = 65_536;

/**
 * One request on a TLS connection of its own under ALPN `ztna-enrol/1`; answers the body. Throws the code with which
 * the relay refused, or as `dialTls`.
 */
export async function requestEnrolment(
  dial: Pick<SecureDial, 'url' | 'trust'>,
  path: string,
  body?: string,
): Promise<string> {
  const socket = await dialTls({ ...dial, alpn: enrolmentProtocol });
  const { host, port } = addressOf(dial.url);
  try {
    return await new Promise<string>((resolve, reject) => {
      const fail = (error: unknown) => {
        clearTimeout(timer);
        reject(explainDialError(error, { url: dial.url, stage: 'upgrade' }));
      };
      const timer = setTimeout(() => {
        fail(timeoutError());
      }, answerTimeoutMs);
      const outgoing = http.request({
        createConnection: () => socket,
        host,
        port,
        path,
        method: body === undefined ? 'GET' : 'POST',
        headers:
          body === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      });
      outgoing.on('error', fail);
      outgoing.on('response', (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('error', fail);
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxAnswerBytes) fail(new ZtnaError('ERR_MESSAGE_TOO_LARGE', { hop: 'relay' }));
          else chunks.push(chunk);
        });
        response.on('end', () => {
          clearTimeout(timer);
          const text = Buffer.concat(chunks).toString('utf8');
          if (response.statusCode === 200) resolve(text);
          else reject(refusal(response.statusCode ?? 0, text));
        });
      });
      outgoing.end(body);
    });
  } finally {
    socket.destroy();
  }
}

function refusal(status: number, text: string): ZtnaError {
  try {
    const { code, message } = decodeMessage(enrolRefusal, text, maxEnrolmentBytes);
    return new ZtnaError(code, { hop: 'relay', ...(message === null ? {} : { message }) });
  } catch (cause) {
    return new ZtnaError('ERR_RELAY_UNREACHABLE', {
      message: `the relay answered with status ${status}`,
      hint: 'check that the address is the relay’s and that both sides run versions that fit',
      hop: 'relay',
      reason: 'answer_unreadable',
      cause,
    });
  }
}
