import pg from 'pg';
import { fullJitterDelayMs } from '../../../protocol/host/index.ts';
import { connectionSettings } from './postgres-pool.ts';
import type { PostgresTarget } from './postgres-url.ts';

const aliveEveryMs = 5_000;
const queryTimeoutMs = 5_000;
const maxDelayMs = 2_000;

/**
 * A connection that LISTENs to one channel, and does so again after every loss: `pg` does not by itself. What was
 * announced in between is lost, so `onNotice(null)` follows each time that it listens.
 */
export class PostgresListener {
  readonly #target: PostgresTarget;
  readonly #channel: string;
  readonly #onNotice: (payload: string | null) => void;
  #client: pg.Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #isStopped = false;

  constructor(target: PostgresTarget, channel: string, onNotice: (payload: string | null) => void) {
    this.#target = target;
    this.#channel = channel;
    this.#onNotice = onNotice;
  }

  start(): void {
    void this.#listen();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#drop(this.#client);
  }

  async #listen(): Promise<void> {
    const client = new pg.Client({
      ...connectionSettings(this.#target),
      query_timeout: queryTimeoutMs,
    });
    this.#client = client;
    // A lost connection tells of it up to three times.
    client.on('error', () => {
      this.#lose(client);
    });
    client.on('end', () => {
      this.#lose(client);
    });
    client.on('notification', ({ payload }) => {
      if (this.#client === client) this.#onNotice(payload ?? '');
    });
    try {
      await client.connect();
      await client.query(`listen "${this.#channel}"`);
    } catch {
      this.#lose(client);
      return;
    }
    if (this.#client !== client) return;
    this.#failures = 0;
    this.#onNotice(null);
    this.#keepAlive(client);
  }

  /** Nothing may come for hours, so a connection that is dead shows only when it is used. */
  #keepAlive(client: pg.Client): void {
    this.#timer = setTimeout(() => {
      client.query('select 1').then(
        () => {
          if (this.#client === client) this.#keepAlive(client);
        },
        () => {
          this.#lose(client);
        },
      );
    }, aliveEveryMs);
  }

  #lose(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#drop(client);
    if (this.#isStopped) return;
    this.#timer = setTimeout(
      () => void this.#listen(),
      fullJitterDelayMs(this.#failures++, { capMs: maxDelayMs }),
    );
  }

  #drop(client: pg.Client | undefined): void {
    clearTimeout(this.#timer);
    this.#client = undefined;
    client?.end().catch(() => undefined);
  }
}
