import { join } from 'node:path';
import * as v from 'valibot';
import type { Bundle } from '../bundle.ts';
import { toZtnaError, ZtnaError } from '../errors.ts';
import { verifyRelayList, type ListedRelay, type RelayList } from '../relay-list.ts';
import type { Logger } from './log.ts';
import { readSecretFile, writeSecretFile } from './state-dir.ts';

const fileName = 'relays.json';

/** `last` is the address of the relay that served last: the first to try at the next start. */
const fileSchema = v.strictObject({
  format: v.literal(1),
  statement: v.nullable(v.string()),
  last: v.nullable(v.string()),
});

export interface KnownRelaysOptions {
  /** The state directory of the identity; without one nothing is kept. */
  readonly dir?: string;
  readonly bundle: () => Bundle;
  readonly logger: Logger;
}

/**
 * The deployment's relays as this machine was told: the newest signed list, kept beside the identity in a file of its
 * own, so that the next start knows more than one address.
 */
export class KnownRelays {
  readonly #options: KnownRelaysOptions;
  readonly #listeners = new Set<(list: RelayList) => void>();
  #list: RelayList | undefined;
  #statement: string | null = null;
  /** Whose keys were found to have signed it. */
  #verifiedWith: Bundle | undefined;
  #last: string | null = null;
  #saving: Promise<void> = Promise.resolve();

  constructor(options: KnownRelaysOptions) {
    this.#options = options;
  }

  /** The newest list; undefined until there is one. */
  get list(): RelayList | undefined {
    return this.#list;
  }

  /** Where a connection was served last; undefined when that is not known. */
  get last(): string | undefined {
    return this.#last ?? undefined;
  }

  /** Every relay listed, those that drain last. Empty without a list. */
  get relays(): readonly ListedRelay[] {
    const relays = this.#list?.relays ?? [];
    return [...relays.filter((r) => !r.isDraining), ...relays.filter((r) => r.isDraining)];
  }

  /** Calls `listener` with every newer list from now on; answers what stops that. */
  onChange(listener: (list: RelayList) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Takes a `relays` statement; answers whether it was newer than what was known. An older one is no mistake: control
   * planes learn of a change one after the other. A list whose signer's key counts no more holds back no other. Throws
   * ERR_STATEMENT_REFUSED for a bad signature.
   */
  take(statement: string): boolean {
    const bundle = this.#options.bundle();
    if (statement === this.#statement && bundle === this.#verifiedWith) return false;
    const list = verifyRelayList(statement, bundle);
    if (this.#list && list.version <= this.#list.version && this.#isStillSigned(bundle))
      return false;
    this.#list = list;
    this.#statement = statement;
    this.#verifiedWith = bundle;
    this.#save();
    this.#options.logger.info('relays_learned', {
      version: list.version,
      relays: list.relays.length,
    });
    for (const listener of [...this.#listeners]) listener(list);
    return true;
  }

  #isStillSigned(bundle: Bundle): boolean {
    if (bundle === this.#verifiedWith) return true;
    try {
      verifyRelayList(this.#statement ?? '', bundle);
      this.#verifiedWith = bundle;
      return true;
    } catch {
      return false; // by a control plane that was removed
    }
  }

  /** Notes where a connection was served. */
  noteLast(url: string): void {
    if (this.#last === url) return;
    this.#last = url;
    this.#save();
  }

  /** Resolves once everything so far is on disk, or could not be kept. */
  async saved(): Promise<void> {
    await this.#saving;
  }

  /** Reads what is kept. A file that is damaged, or was signed by a key that counts no more, is as none. */
  async load(): Promise<void> {
    const { dir, bundle, logger } = this.#options;
    if (dir === undefined) return;
    try {
      const json: unknown = JSON.parse(await readSecretFile(join(dir, fileName)));
      const { statement, last } = v.parse(fileSchema, json);
      this.#last = last;
      if (statement === null) return;
      const verifiedWith = bundle();
      this.#list = verifyRelayList(statement, verifiedWith);
      this.#statement = statement;
      this.#verifiedWith = verifiedWith;
    } catch (thrown) {
      if (thrown instanceof ZtnaError && thrown.code === 'ERR_CONFIG_NOT_FOUND') return;
      logger.warn('relays_unreadable', { code: toZtnaError(thrown).code });
    }
  }

  #save(): void {
    const { dir, logger } = this.#options;
    if (dir === undefined) return;
    this.#saving = this.#saving
      .then(() => {
        const kept = { format: 1, statement: this.#statement, last: this.#last };
        return writeSecretFile(join(dir, fileName), `${JSON.stringify(kept)}\n`);
      })
      .catch((error: unknown) => {
        logger.warn('relays_not_saved', { code: toZtnaError(error).code });
      });
  }
}
