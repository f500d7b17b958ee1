import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { run } from '../support/namespaces.ts';
import { inPlace } from '../support/program.ts';

/** What a link does to packets, alike in each of its directions. */
export interface LinkShape {
  /** One way. */
  readonly delayMs: number;
  /** Up to so much more or less. */
  readonly jitterMs?: number;
  /** Shares between 0 and 1. */
  readonly loss?: number;
  readonly duplicate?: number;
  readonly reorder?: number;
  readonly corrupt?: number;
  /** Bits per second. */
  readonly rate?: number;
}

export const cleanLink: LinkShape = { delayMs: 0 };

/**
 * Opens a TAP device for each name and hands them, as descriptors 3 and 4, to the program that follows: Node has no
 * `ioctl`, and perl is wherever Debian is.
 */
const attach = String.raw`
  use Fcntl; $^F = 9;
  for my $name (shift @ARGV, shift @ARGV) {
    sysopen(my $device, "/dev/net/tun", O_RDWR) or die "/dev/net/tun: $!\n";
    ioctl($device, 0x400454ca, pack("a16 S x22", $name, 0x1002)) or die "$name: $!\n";
    push @open, $device;
  }
  exec @ARGV or die "$ARGV[0]: $!\n";`;

/** A link between two namespaces whose packets pass through a process of the harness. */
export class PacketLink {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(ends: {
    readonly router: string;
    readonly place: string;
    readonly routerDevice: string;
    readonly placeDevice: string;
  }): Promise<PacketLink> {
    const { router, place, routerDevice, placeDevice } = ends;
    const script = fileURLToPath(new URL('./packet-link-worker.ts', import.meta.url));
    const names = [routerDevice, placeDevice];
    const args = ['-e', attach, '--', ...names, process.execPath, script];
    const child = spawn(...inPlace(router, 'perl', args), {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '4' },
    });
    const link = new PacketLink(child);
    child.stdin.on('error', () => undefined);
    await Promise.race([
      once(createInterface({ input: child.stdout }), 'line'),
      once(child, 'exit').then(() => {
        throw new Error('a link through user space could not be made');
      }),
    ]);
    await run('ip', '-n', router, 'link', 'set', placeDevice, 'netns', place);
    return link;
  }

  shape(shape: LinkShape): void {
    this.#child.stdin?.write(`${JSON.stringify(shape)}\n`);
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null) await ended;
  }
}
