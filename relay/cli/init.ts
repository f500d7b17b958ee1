import { resolve } from 'node:path';
import { readSecretArgument } from '../../protocol/host/index.ts';
import { parseEnrolmentCode, ZtnaError } from '../../protocol/index.ts';
import { dirOf, talk, textOf, type Arguments, type Leaf } from './command.ts';
import { relayConfigText } from './relay-yaml.ts';

/** `ztna-relay init`: everything that a relay needs to run, in a directory that holds none yet. */
export const initLeaf: Leaf = {
  usage: 'init',
  describe: 'make a relay: keys, store and relay.yaml',
  options: {
    url: { type: 'string', describe: 'https://HOST:PORT by which agents and connectors reach it' },
    store: { type: 'string', describe: 'postgres://USER@HOST/DATABASE; else SQLite in DIR' },
    join: {
      type: 'string',
      describe: 'code, - or file:PATH: a further control plane on the same --store',
    },
  },
  run: async (argv) => {
    if (argv['join'] !== undefined) {
      await joinByCode(argv);
      return;
    }
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
    if (storeUrl !== null) refusePassword(storeUrl);
    await makeRelay(dir, url, text, storeUrl);
    talk(`made a relay for ${url} in ${dir}`);
    talk(`next: ztna-relay run --dir ${dir}`);
    talk(`      ztna-relay policy apply POLICIES --dir ${dir}`);
    talk(`      ztna-relay invite connector NAME --app APP --dir ${dir}`);
    talk(`      ztna-relay invite user NAME --group GROUP --dir ${dir}`);
  },
};

async function joinByCode(argv: Arguments): Promise<void> {
  if (!/^postgres(?:ql)?:/.test(textOf(argv, 'store'))) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'a further control plane needs the store that the others use',
      hint: 'add --store postgres://USER@HOST/DATABASE',
    });
  }
  if (argv['url'] !== undefined) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'its address was named where the code was made',
      hint: 'leave out --url',
    });
  }
  refusePassword(textOf(argv, 'store'));
  const code = parseEnrolmentCode(await readSecretArgument(textOf(argv, 'join')));
  const dir = resolve(dirOf(argv));
  const { joinRelay } = await import('./join-relay.ts');
  const { url } = await joinRelay(dir, code, textOf(argv, 'store'));
  talk(`made a control plane for ${url} in ${dir}`);
  talk(`next: ztna-relay run --dir ${dir}`);
}

/** Everybody on this machine can read what a process was started with. */
function refusePassword(storeUrl: string): void {
  if ((URL.parse(storeUrl)?.password ?? '') === '') return;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'a password on the command line can be read by every user of this machine',
    hint: 'put it into a file of mode 0600 and add ?passwordfile=/path/to/it, or use PGPASSFILE',
  });
}
