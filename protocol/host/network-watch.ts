import { EventEmitter } from 'node:events';
import { networkInterfaces } from 'node:os';
import type { LocalClocks } from '../control-time.ts';
import { readClocks } from './clock.ts';
import { isLoopback } from './no-proxy.ts';

const pollEveryMs = 1_000;

/** A machine, or a process of it, that stood still for so long may have missed that the network went away. */
const sleptAfterMs = 2_000;

/** The machine as it is at one moment. */
export interface MachineReading {
  readonly clocks: LocalClocks;
  /** Addresses of all interfaces that are up, without zones. */
  readonly addresses: readonly string[];
}

interface NetworkEvents {
  /** The machine has other addresses than before. */
  changed: [];
  /** It slept, or the process was held, for about so many milliseconds. */
  woke: [sleptMs: number];
}

/**
 * Notices that the machine slept, which timers do not tell, and that its addresses changed. It looks every second, and
 * only while somebody listens. Addresses of one link alone (fe80::, 169.254) are no way to a relay and count for nothing.
 */
export class NetworkWatch extends EventEmitter<NetworkEvents> {
  readonly #read: () => MachineReading;
  readonly #pollMs: number;
  #last: MachineReading | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { readonly read?: () => MachineReading; readonly pollMs?: number } = {}) {
    super();
    this.#read = options.read ?? readMachine;
    this.#pollMs = options.pollMs ?? pollEveryMs;
    this.setMaxListeners(0); // every connection of the process has one
  }

  /** Calls `onEvent` at either event. Returns what ends that. */
  subscribe(onEvent: () => void): () => void {
    this.on('changed', onEvent);
    this.on('woke', onEvent);
    if (!this.#timer) {
      this.#last = this.#read();
      this.#timer = setInterval(() => {
        this.poll();
      }, this.#pollMs);
      this.#timer.unref();
    }
    return () => {
      this.off('changed', onEvent);
      this.off('woke', onEvent);
      if (this.listenerCount('changed') + this.listenerCount('woke') > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }

  /** False once no interface that is up has the address any more; while somebody listens, it may take a second to show. */
  hasAddress(address: string): boolean {
    const bare = bareAddress(address);
    // Every connection asks as it is made, and to look is dear; what has come since the last look is found by another.
    const isKnown = this.#timer !== undefined && this.#last?.addresses.includes(bare) === true;
    return isKnown || isLoopback(bare) || this.#read().addresses.includes(bare);
  }

  /** Looks at once, as otherwise every second. */
  poll(): void {
    const last = this.#last ?? this.#read();
    const now = this.#read();
    this.#last = now;
    if (routable(last) !== routable(now)) this.emit('changed');
    // A monotonic clock may stand still in sleep; where it does not, the timer was late.
    const monotonicMs = now.clocks.monotonicMs - last.clocks.monotonicMs;
    const wallMs = now.clocks.wallMs - last.clocks.wallMs;
    const sleptMs = Math.max(wallMs - monotonicMs, monotonicMs - this.#pollMs);
    if (sleptMs >= sleptAfterMs) this.emit('woke', sleptMs);
  }
}

/** The machine that this process runs on. */
export const machineNetwork = new NetworkWatch();

function readMachine(): MachineReading {
  return { clocks: readClocks(), addresses: readAddresses() };
}

function readAddresses(): string[] {
  try {
    return Object.values(networkInterfaces()).flatMap((all) =>
      (all ?? []).map(({ address }) => bareAddress(address)),
    );
  } catch {
    return []; // some systems do not let everyone look
  }
}

/** Without the zone, and an IPv4 address as such. */
function bareAddress(address: string): string {
  return address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '');
}

function routable({ addresses }: MachineReading): string {
  return addresses
    .filter((address) => !isLoopback(address) && !/^(?:fe80:|169\.254\.)/i.test(address))
    .sort()
    .join(' ');
}
