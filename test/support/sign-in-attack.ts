/** A thread in which strangers sign in on a page, all at once; its one message is what each was answered. */
import { request } from 'node:https';
import { parentPort, workerData } from 'node:worker_threads';

export interface Attack {
  readonly port: number;
  /** Where the form of the page is sent. */
  readonly path: string;
  readonly attempts: number;
}

/** Addresses that the attempts come from. */
const sources = 200;
const password = 'a-guess-of-a-stranger';
const { port, path, attempts } = workerData as Attack;

/** The status; 0 where there was no answer. */
function attempt(at: number, user: string): Promise<number> {
  const body = new URLSearchParams({ step: 'password', user, password }).toString();
  return new Promise((resolve) => {
    const call = request({
      ...{ host: '127.0.0.1', port, path, method: 'POST', agent: false },
      localAddress: `127.0.1.${String(1 + (at % sources))}`,
      rejectUnauthorized: false,
      headers: {
        origin: `https://127.0.0.1:${String(port)}`,
        'content-type': 'application/x-www-form-urlencoded',
        'content-length': Buffer.byteLength(body),
      },
    });
    call.once('response', (answer) => {
      answer.resume();
      answer.once('close', () => {
        resolve(answer.statusCode ?? 0);
      });
    });
    call.once('error', () => {
      resolve(0);
    });
    call.end(body);
  });
}

const all = Array.from({ length: attempts }, (_, at) =>
  attempt(at, at % 2 === 0 ? 'alice' : `nobody-${String(at)}`),
);
parentPort?.postMessage(await Promise.all(all));
