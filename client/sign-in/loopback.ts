import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { http } from '../../protocol/host/index.ts';
import { answerHeaders, renderAnswer, strangerPage, type AnswerPage } from './answer-page.ts';

/** A request's head, and all of it, has to be here within this. */
const requestWithinMs = 5_000;
const maxConnections = 16;
const maxHeadBytes = 8_192;

/** What the browser brought, and the way to tell the person at it how that ended. */
export interface Arrival<T> {
  readonly brought: T;
  /** Resolves once the browser has the page, or has gone. */
  answer(page: AnswerPage): Promise<void>;
}

/**
 * Waits on this machine alone for a browser that comes back from a page of the relay. It takes one request: the first whose
 * query `read` finds something in. Whoever asks for anything else learns nothing and changes nothing.
 */
export class Loopback<T> {
  /** Resolves with the one that came; never rejects, and never settles once closed. */
  readonly arrived: Promise<Arrival<T>>;
  port = 0;
  readonly #server: Server;
  readonly #read: (query: URLSearchParams) => T | undefined;
  #arrive!: (arrival: Arrival<T>) => void;
  #hasArrived = false;

  /** Listens on a port of 127.0.0.1 that was free. Rejects as `listen` does. */
  static async listen<T>(read: (query: URLSearchParams) => T | undefined): Promise<Loopback<T>> {
    const loopback = new Loopback(read);
    const server = loopback.#server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    server.on('error', () => undefined);
    loopback.port = (server.address() as AddressInfo).port;
    return loopback;
  }

  private constructor(read: (query: URLSearchParams) => T | undefined) {
    this.#read = read;
    this.arrived = new Promise((resolve) => {
      this.#arrive = resolve;
    });
    this.#server = http.createServer(
      {
        maxHeaderSize: maxHeadBytes,
        headersTimeout: requestWithinMs,
        requestTimeout: requestWithinMs,
        connectionsCheckingInterval: 1_000,
      },
      (request, response) => {
        this.#take(request, response);
      },
    );
    this.#server.maxConnections = maxConnections;
  }

  /** Listens no more, and leaves whoever is still connected. Safe to call twice. */
  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #take(request: IncomingMessage, response: ServerResponse): void {
    const brought = this.#readRequest(request);
    if (brought === undefined || this.#hasArrived) {
      void send(response, strangerPage);
      return;
    }
    this.#hasArrived = true;
    this.#arrive({ brought, answer: async (page) => send(response, page) });
  }

  /** Of a page elsewhere whose name was made to lead here, the Host tells. */
  #readRequest({ method, url = '', headers }: IncomingMessage): T | undefined {
    const origin = `http://127.0.0.1:${String(this.port)}`;
    if (method !== 'GET' || `http://${headers.host ?? ''}` !== origin) return undefined;
    if (!/^\/\?/.test(url)) return undefined;
    return this.#read(new URLSearchParams(url.slice(2)));
  }
}

async function send(response: ServerResponse, page: AnswerPage): Promise<void> {
  await new Promise<void>((resolve) => {
    response.once('close', resolve);
    response.on('error', () => undefined);
    if (response.destroyed || response.closed) resolve();
    response.writeHead(page.status, answerHeaders);
    response.end(renderAnswer(page));
  });
}
