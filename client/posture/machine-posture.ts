import type { DevicePosture, ExtraCheck } from '../../protocol/index.ts';
import { softwareVersion, type NetworkWatch } from '../../protocol/host/index.ts';
import type { PostureSource } from '../agent/posture-sender.ts';
import { PostureCollector } from './collect.ts';
import { PostureLoop } from './posture-loop.ts';

export interface MachinePostureOptions {
  /** By default it collects from the machine that this process runs on. */
  readonly collector?: Pick<PostureCollector, 'collect'>;
  readonly network?: Pick<NetworkWatch, 'subscribe'>;
}

type StartOptions = Parameters<PostureSource['start']>[0];

/** What an agent tells of its machine: collected from when the control plane asks until the agent stops. */
export class MachinePosture implements PostureSource {
  readonly #collector: Pick<PostureCollector, 'collect'>;
  readonly #network: Pick<NetworkWatch, 'subscribe'> | undefined;
  #loop: PostureLoop | undefined;
  #asked: StartOptions | undefined;

  constructor(options: MachinePostureOptions = {}) {
    const clientVersion = softwareVersion();
    this.#collector = options.collector ?? new PostureCollector({ clientVersion });
    this.#network = options.network;
  }

  /** The checks that the deployment asked for last, beside those of every client. */
  get extraChecks(): readonly ExtraCheck[] {
    return this.#asked?.checks ?? [];
  }

  start(options: StartOptions): void {
    this.#asked = options;
    const schedule = { everyMs: options.everyMs, extraChecks: options.checks };
    if (this.#loop) {
      this.#loop.reschedule(schedule);
      return;
    }
    this.#loop = new PostureLoop({
      ...schedule,
      collect: (how) => this.#collector.collect(how),
      onFacts: ({ facts, tookMs }) => this.#asked?.onFacts(facts, tookMs),
      ...(this.#network && { network: this.#network }),
    });
    this.#loop.start();
  }

  stop(): void {
    this.#loop?.stop();
    this.#loop = undefined;
  }

  /** Collects once, for whoever looks on. */
  async collect(): Promise<DevicePosture> {
    return this.#collector.collect({ extraChecks: this.extraChecks });
  }
}
