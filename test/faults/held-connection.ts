import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { encodeEchoGreeting } from './flow.ts';

const probeBytes = 8;

/** One connection of an application, held open, over which it says something now and then and has it said back. */
export class HeldConnection {
  readonly #socket: Socket;
  #next = 1n;
  #isBusy = false;
  /** What is wrong with it; null while nothing is. */
  fault: string | null = null;

  /** Connects to a local port and waits for the first answer. */
  static async open(port: number): Promise<HeldConnection> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    await once(socket, 'connect');
    socket.write(encodeEchoGreeting());
    const held = new HeldConnection(socket);
    await held.roundTrip();
    return held;
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => (this.fault ??= error.message));
    socket.on('close', () => (this.fault ??= 'closed'));
  }

  /** Sends the next number and waits until it, and nothing else, has come back. Throws when the connection breaks. */
  async roundTrip(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    const probe = Buffer.alloc(probeBytes);
    probe.writeBigUInt64BE(this.#next++);
    this.#socket.write(probe);
    const answer = await this.#read();
    if (!answer.equals(probe)) this.fault ??= `${probe.toString('hex')} came back changed`;
    this.#isBusy = false;
    if (this.fault !== null) throw new Error(this.fault);
  }

  async #read(): Promise<Buffer> {
    for (;;) {
      if (this.fault !== null) throw new Error(this.fault);
      const answer = this.#socket.read(probeBytes) as Buffer | null;
      if (answer) return answer;
      await Promise.race([once(this.#socket, 'readable'), once(this.#socket, 'close')]);
    }
  }
}
