import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Page } from 'playwright-core';

/** The end of a command that waits for the browser beside it. */
export class Command {
  readonly #server: Server;
  readonly #visits: URL[] = [];
  #wake: () => void = () => undefined;

  constructor() {
    this.#server = createServer((request: IncomingMessage, response) => {
      const url = new URL(request.url ?? '/', 'http://127.0.0.1');
      response.end('You may close this window.');
      if (url.pathname !== '/') return;
      this.#visits.push(url);
      this.#wake();
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The next visit, once the page has arrived there too. */
  async visit(page: Page): Promise<URL> {
    for (;;) {
      const visit = this.#visits.shift();
      if (visit) {
        await page.waitForURL(({ port }) => port === String(this.port));
        return visit;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}
