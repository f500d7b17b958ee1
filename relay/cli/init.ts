import { resolve } from 'node:path';
import { notAvailableYet } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import { dirOf, talk, textOf, type Leaf } from './command.ts';
import { relayConfigText } from './relay-yaml.ts';

/** `ztna-relay init`: everything that a relay needs to run, in a directory that holds none yet. */
export const initLeaf: Leaf = {
  usage: 'init',
  describe: 'make a relay: keys, store and relay.yaml',
  options: {
    url: { type: 'string', describe: 'https://HOST:PORT by which agents and connectors reach it' },
    store: { type: 'string', describe: 'postgres://USER@HOST/DATABASE; else SQLite in DIR' },
    join: { type: 'string', describe: 'join another control plane (not available yet)' },
  },
  run: async (argv) => {
    if (argv['join'] !== undefined) notAvailableYet('init --join');
    if (typeof argv['url'] !== 'string') {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: 'init needs the address that agents and connectors will use',
        hint: 'run: ztna-relay init --url https://HOST:PORT',
      });
    }
    const { parseRelayConfig } = await import('../config.ts');
    const store = textOf(argv, 'store');
    const given = store === '' || store === 'sqlite' ? null : store;
    const text = relayConfigText(textOf(argv, 'url'), given);
    const { url, storeUrl } = parseRelayConfig(text, 'init');
    const dir = resolve(dirOf(argv));
    const { makeRelay } = await import('./make-relay.ts');
    await makeRelay(dir, url, text, storeUrl);
    talk(`made a relay for ${url} in ${dir}`);
    talk(`next: ztna-relay run --dir ${dir}`);
    talk(`      ztna-relay policy apply POLICIES --dir ${dir}`);
    talk(`      ztna-relay invite connector NAME --app APP --dir ${dir}`);
    talk(`      ztna-relay invite user NAME --group GROUP --dir ${dir}`);
  },
};
