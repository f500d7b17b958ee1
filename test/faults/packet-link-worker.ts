/**
 * A link between two TAP devices, open as descriptors 3 and 4: packets are lost, delayed, held to a rate, duplicated,
 * put out of order and damaged as the last line of standard input says. Prints `ready`; ends with standard input.
 */
import { randomInt } from 'node:crypto';
import { read, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { LinkShape } from './packet-link.ts';

/** Packets that wait for the rate longer than this are dropped, as a router's full buffer drops them. */
const longestQueueMs = 400;
const largestPacketBytes = 65_536;
const ethernetHeaderBytes = 14;
const arp = 0x0806;

let shape: LinkShape = { delayMs: 0 };

const happens = (share: number | undefined): boolean =>
  share !== undefined && share > 0 && randomInt(1_000_000) < share * 1_000_000;

/** Carries what one device reads to the other. */
class Way {
  readonly #to: number;
  #freeAtMs = 0; // when the rate lets the next packet go
  #lastAtMs = 0; // when the packet before this one arrives

  constructor(to: number) {
    this.#to = to;
  }

  take(packet: Buffer): void {
    // A neighbour that cannot be resolved would be told to the sender, which a bad link never tells.
    if (packet.length >= ethernetHeaderBytes && packet.readUInt16BE(12) === arp) {
      this.#deliver(packet, 0);
      return;
    }
    if (happens(shape.loss)) return;
    const nowMs = performance.now();
    let leavesAtMs = nowMs;
    if (shape.rate !== undefined) {
      leavesAtMs = Math.max(nowMs, this.#freeAtMs);
      if (leavesAtMs - nowMs > longestQueueMs) return;
      this.#freeAtMs = leavesAtMs + (packet.length * 8_000) / shape.rate;
      leavesAtMs = this.#freeAtMs;
    }
    const jitterMs = shape.jitterMs ? randomInt(2 * shape.jitterMs + 1) - shape.jitterMs : 0;
    let arrivesAtMs = leavesAtMs + Math.max(0, shape.delayMs + jitterMs);
    // Jitter alone keeps the order, as a queue does.
    if (happens(shape.reorder)) arrivesAtMs = leavesAtMs;
    else arrivesAtMs = this.#lastAtMs = Math.max(arrivesAtMs, this.#lastAtMs);
    if (happens(shape.corrupt) && packet.length > ethernetHeaderBytes) {
      const at = ethernetHeaderBytes + randomInt(packet.length - ethernetHeaderBytes);
      packet[at] = (packet[at] ?? 0) ^ (1 << randomInt(8));
    }
    const copies = happens(shape.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) this.#deliver(packet, arrivesAtMs - nowMs);
  }

  #deliver(packet: Buffer, inMs: number): void {
    const write = (): void => {
      try {
        writeSync(this.#to, packet);
      } catch {
        // the device is down: the packet is lost
      }
    };
    if (inMs <= 0) write();
    else setTimeout(write, inMs);
  }
}

function carry(from: number, to: number): void {
  const way = new Way(to);
  const buffer = Buffer.alloc(largestPacketBytes);
  const next = (): void => {
    read(from, buffer, 0, buffer.length, null, (error, count) => {
      if (!error) way.take(Buffer.from(buffer.subarray(0, count)));
      // A device that is down refuses reads until it is up.
      if (error) setTimeout(next, 10);
      else next();
    });
  };
  next();
}

carry(3, 4);
carry(4, 3);
createInterface({ input: process.stdin })
  .on('line', (line) => {
    shape = JSON.parse(line) as LinkShape;
  })
  // Reads of the devices block their threads for ever, and a tidy exit would wait for them.
  .once('close', () => process.kill(process.pid, 'SIGKILL'));
console.log('ready');
