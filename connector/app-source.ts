import { unwatchFile, watchFile } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { toZtnaError, ZtnaError } from '../protocol/index.ts';
import { changedApps, isSameMap, mergeAppMaps, type AppMap } from './app-map.ts';
import { emptyConfig, parseConfig, type ConnectorConfig } from './config.ts';
import { maxConfigBytes } from './limits.ts';
import type { Logger } from '../protocol/host/index.ts';

export const configFileName = 'connector.yaml';

export interface AppSourceOptions {
  readonly dir: string;
  /** Apps of the command line; they win over the file's. */
  readonly flags: AppMap;
  readonly logger: Logger;
  /** Called after the map changed, with the names whose tunnels must end. */
  readonly onChange: (apps: AppMap, gone: readonly string[]) => void;
}

/** `connector.yaml` and the apps of the command line, read again whenever the file changes. */
export class AppSource {
  readonly #options: AppSourceOptions;
  readonly #path: string;
  #apps: AppMap;
  #drainForMs: number;
  #hasFile: boolean;
  #reloading: Promise<void> = Promise.resolve();
  readonly #onFileChange = () => {
    void this.reload();
  };

  /** Reads the map for the first time. Throws ERR_CONFIG_INVALID or ERR_CONFIG_NOT_AVAILABLE. */
  static async open(options: AppSourceOptions): Promise<AppSource> {
    const path = join(options.dir, configFileName);
    const file = await readConfig(path);
    return new AppSource(options, path, file);
  }

  private constructor(options: AppSourceOptions, path: string, file: ConnectorConfig | undefined) {
    this.#options = options;
    this.#path = path;
    this.#hasFile = file !== undefined;
    const config = file ?? emptyConfig;
    this.#apps = mergeAppMaps(config.apps, options.flags);
    this.#drainForMs = config.drainForMs;
    // Polling also sees a file that is swapped by a link, as Kubernetes does.
    watchFile(path, { interval: 1_000, persistent: false }, this.#onFileChange);
  }

  get apps(): AppMap {
    return this.#apps;
  }

  /** How long a stop waits for tunnels that are in use. */
  get drainForMs(): number {
    return this.#drainForMs;
  }

  /** Reads the file again. What cannot be read, or is gone, is logged and changes nothing. */
  reload(): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reloadNow());
    return this.#reloading;
  }

  stop(): void {
    unwatchFile(this.#path, this.#onFileChange);
  }

  async #reloadNow(): Promise<void> {
    const { flags, logger, onChange } = this.#options;
    try {
      const file = await readConfig(this.#path);
      if (file === undefined) {
        if (this.#hasFile) logger.warn('apps_file_missing', { file: configFileName });
        this.#hasFile = false;
        return;
      }
      this.#hasFile = true;
      const next = mergeAppMaps(file.apps, flags);
      const gone = changedApps(this.#apps, next);
      const isSame = isSameMap(this.#apps, next);
      this.#apps = next;
      this.#drainForMs = file.drainForMs;
      if (isSame) return;
      logger.info('apps_reloaded', { apps: next.size, gone: gone.length });
      onChange(next, gone);
    } catch (error) {
      const { code, message, hint } = toZtnaError(error);
      logger.error('apps_reload_refused', { code, message, hint });
    }
  }
}

/** What the file says, or undefined when there is none. */
async function readConfig(path: string): Promise<ConnectorConfig | undefined> {
  let file;
  try {
    file = await open(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unreadable(path, cause);
  }
  try {
    if ((await file.stat()).size > maxConfigBytes) throw unreadable(path, 'too large');
    return parseConfig(await file.readFile('utf8'), configFileName);
  } finally {
    await file.close();
  }
}

function unreadable(path: string, cause: unknown): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${path} cannot be read`,
    hint: `make it a plain file of at most ${maxConfigBytes} bytes that this user may read`,
    cause,
  });
}
