import { escapeTerminal } from './terminal.ts';

/** Environment names that every program of the product reads, with their use. */
export const environmentNames: Readonly<Record<string, string>> = {
  ZTNA_KEY_PASSPHRASE_FILE: 'file with the passphrase that seals the keys at rest',
  ZTNA_RELAY_ADDRESS: 'ADDRESS:PORT to connect to in place of the relay URL’s own',
  HTTPS_PROXY: 'proxy on the way to the relay: http(s)://[USER:PASSWORD@]HOST:PORT',
  ALL_PROXY: 'the same, when HTTPS_PROXY is absent',
  NO_PROXY: 'where to go without it: names, .suffixes, addresses, CIDR ranges, *',
  ZTNA_NO_INPUT: '1: never ask',
  ZTNA_LOG_LEVEL: 'debug, info, warn or error',
  ZTNA_DEBUG: '1: show where an error came from',
};

/** What some program of the product reads or sets: nothing to warn of where another one runs. */
const siblingNames: readonly string[] = [
  'ZTNA_HOME',
  'ZTNA_PROFILE',
  'ZTNA_HOST',
  'ZTNA_PORT',
  'ZTNA_CONNECTOR_DIR',
  'ZTNA_RELAY_DIR',
];

/** Says once, on stderr, which `ZTNA_…` variables are set but mean nothing to any program of the product. */
export function warnUnknownEnvironment(program: string, known: readonly string[]): void {
  const unknown = Object.keys(process.env).filter(
    (name) =>
      name.startsWith('ZTNA_') &&
      !known.includes(name) &&
      !siblingNames.includes(name) &&
      !Object.hasOwn(environmentNames, name),
  );
  if (unknown.length === 0) return;
  const names = unknown.sort().map(escapeTerminal).join(', ');
  process.stderr.write(`${program}: warning: ignored from the environment: ${names}\n`);
}
