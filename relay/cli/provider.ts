import { readFile } from 'node:fs/promises';
import { parseDurationMs, readSecretArgument } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import {
  adminLeaf,
  done,
  fields,
  listOf,
  maybe,
  table,
  talk,
  textOf,
  type Arguments,
  type Leaf,
} from './command.ts';

const name = {
  name: { type: 'string', describe: 'what it is called here', demandOption: true },
} as const;
const nameArgs = (argv: Arguments) => ({ name: textOf(argv, 'name') });
const many = { type: 'string', array: true, nargs: 1 } as const;

const options = {
  issuer: { type: 'string', describe: 'its URL, as its tokens say it', demandOption: true },
  'client-id': { type: 'string', describe: 'as it is registered there', demandOption: true },
  'client-secret-file': { type: 'string', describe: 'file with the secret, or - for stdin' },
  title: { type: 'string', describe: 'what people see; the name unless given' },
  scope: { ...many, describe: 'to ask for; openid, profile, email, offline_access unless given' },
  'user-claim': { type: 'string', describe: 'claim that users are called by; email unless given' },
  'groups-claim': { type: 'string', describe: 'claim that lists groups: NAME, A.B or an URL' },
  'group-map': { ...many, describe: 'THEIRS=OURS; with any, no other groups count' },
  'mfa-acr': { ...many, describe: 'acr that means a second factor' },
  'phishing-resistant-acr': { ...many, describe: 'acr that means a passkey or the like' },
  'step-up-acr': { ...many, describe: 'acr to ask for where policy wants more' },
  param: { ...many, describe: 'K=V, sent along to its page' },
  recheck: { type: 'string', describe: 'how often it is asked again; 10m unless given' },
  'create-users': {
    type: 'boolean',
    default: true,
    describe: 'make a user of whoever it signs in; --no-create-users: only of known ones',
  },
  'allowed-domain': { ...many, describe: 'only addresses of this domain' },
  ca: { type: 'string', describe: 'PEM file of the authority of its certificate' },
  'allow-private': { type: 'boolean', describe: 'it is at a private address' },
  replace: { type: 'boolean', describe: 'new settings for one that is there' },
} as const;

async function additions(argv: Arguments): Promise<Record<string, unknown>> {
  const {
    recheck,
    ca,
    clientSecretFile: secretFile,
  } = {
    ...maybe(argv, 'recheck'),
    ...maybe(argv, 'ca'),
    ...maybe(argv, 'clientSecretFile'),
  };
  const scopes = listOf(argv, 'scope');
  return {
    ...nameArgs(argv),
    issuer: textOf(argv, 'issuer'),
    clientId: textOf(argv, 'clientId'),
    title: maybe(argv, 'title').title ?? textOf(argv, 'name'),
    scopes: scopes.length > 0 ? scopes : ['openid', 'profile', 'email', 'offline_access'],
    ...maybe(argv, 'userClaim'),
    ...maybe(argv, 'groupsClaim'),
    groupMap: Object.fromEntries(listOf(argv, 'groupMap').map(parseMapping)),
    parameters: Object.fromEntries(listOf(argv, 'param').map(parseParameter)),
    mfaAcr: listOf(argv, 'mfaAcr'),
    phishingResistantAcr: listOf(argv, 'phishingResistantAcr'),
    stepUpAcr: listOf(argv, 'stepUpAcr'),
    allowedDomains: listOf(argv, 'allowedDomain'),
    createUsers: argv['createUsers'] !== false,
    allowPrivate: argv['allowPrivate'] === true,
    replace: argv['replace'] === true,
    ...(recheck === undefined ? {} : { recheckMs: parseDurationMs(recheck) }),
    ...(ca === undefined ? {} : { ca: await readPem(ca) }),
    ...(secretFile === undefined
      ? {}
      : { secret: await readSecretArgument(secretFile === '-' ? '-' : `file:${secretFile}`) }),
  };
}

/** `theirs=ours`; theirs may hold `=` itself. Throws ERR_CONFIG_USAGE. */
function parseMapping(text: string): [string, string] {
  const at = text.lastIndexOf('=');
  if (at > 0 && at < text.length - 1) return [text.slice(0, at), text.slice(at + 1)];
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `not a mapping of groups: ${text}`,
    hint: 'write --group-map THEIRS=OURS',
  });
}

/** `k=v`; the value may hold `=` itself. Throws ERR_CONFIG_USAGE. */
function parseParameter(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at > 0 && at < text.length - 1) return [text.slice(0, at), text.slice(at + 1)];
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `not a parameter: ${text}`,
    hint: 'write --param KEY=VALUE',
  });
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `cannot read ${path}`, cause });
  }
}

/** `provider …`: identity providers that users sign in at. */
export const providerLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'let users sign in at an OpenID Provider; it is asked at once',
    positionals: name,
    options,
    command: 'provider.add',
    args: additions,
    show: (result) => {
      const { redirectUris, logoutUri, issuer } = result as {
        readonly redirectUris: readonly string[];
        readonly logoutUri: string;
        readonly issuer: string;
      };
      talk(`users may sign in at ${issuer}`);
      for (const uri of redirectUris) talk(`register there, as redirect URI:            ${uri}`);
      talk(`and where it can tell of logouts by itself: ${logoutUri}`);
    },
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list providers',
    command: 'provider.list',
    show: table(
      ...['name', 'title', 'issuer', 'clientId', 'sessions', 'unreachableSinceMs', 'lastError'],
    ),
  }),
  adminLeaf({
    usage: 'show <name>',
    describe: 'show the settings of a provider',
    positionals: name,
    command: 'provider.show',
    args: nameArgs,
    show: fields,
  }),
  adminLeaf({
    usage: 'remove <name>',
    describe: 'remove a provider and end its sessions; its users stay, and cannot sign in',
    positionals: name,
    command: 'provider.remove',
    args: nameArgs,
    show: done(
      (result, argv) =>
        `provider ${textOf(argv, 'name')} removed; sessions ended: ${String(result['sessionsEnded'])}`,
    ),
  }),
];
