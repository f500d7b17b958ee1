import { createPublicKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { parseDurationMs } from '../../protocol/host/index.ts';
import { rawPublicKey, toZtnaError, ZtnaError } from '../../protocol/index.ts';
import {
  adminLeaf,
  done,
  fields,
  listOf,
  maybe,
  table,
  textOf,
  type Arguments,
  type Leaf,
} from './command.ts';
import { parseLabels } from './value.ts';

const name = {
  name: { type: 'string', describe: 'name of the service', demandOption: true },
} as const;
const nameArgs = (argv: Arguments) => ({ name: textOf(argv, 'name') });

const credentialOptions = {
  key: { type: 'string', describe: 'PEM file with the Ed25519 public key that it signs in with' },
  issuer: { type: 'string', describe: 'or: URL of an issuer whose tokens it signs in with' },
  audience: { type: 'string', describe: 'with --issuer: for whom tokens are made out' },
  claim: {
    type: 'string',
    array: true,
    nargs: 1,
    describe: 'with --issuer: NAME=VALUE that tokens must claim; at least one',
  },
  jwks: { type: 'string', describe: 'URL of the issuer’s keys; else as it describes itself' },
  ca: { type: 'string', describe: 'PEM file of the authority of the issuer’s certificate' },
  'allow-private': { type: 'boolean', describe: 'the issuer is at a private address' },
  session: { type: 'string', describe: 'how long a session lasts; 1h unless given' },
} as const;

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `cannot read ${path}`, cause });
  }
}

/** The raw public key of a PEM file. A private key is refused: it stays where it is used. */
async function readPublicKey(path: string): Promise<string> {
  const text = await readText(path);
  if (text.includes('PRIVATE KEY')) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `${path} holds a private key, which stays with the service`,
      hint: `give its public half: openssl pkey -in ${path} -pubout`,
    });
  }
  try {
    const key = createPublicKey(text);
    if (key.asymmetricKeyType === 'ed25519') return rawPublicKey(key).toString('base64url');
  } catch (cause) {
    throw noKey(path, toZtnaError(cause));
  }
  throw noKey(path);
}

function noKey(path: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${path} holds no Ed25519 public key in PEM`,
    hint: 'make one: openssl genpkey -algorithm ed25519 -out FILE; openssl pkey -in FILE -pubout',
    cause,
  });
}

/** The credential that the options describe; none where there are none. */
async function credentialOf(argv: Arguments): Promise<Record<string, unknown> | undefined> {
  const { key, issuer, session, ca } = {
    ...maybe(argv, 'key'),
    ...maybe(argv, 'issuer'),
    ...maybe(argv, 'session'),
    ...maybe(argv, 'ca'),
  };
  if (key !== undefined && issuer !== undefined) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'a credential is a key or tokens of an issuer',
      hint: 'add the other with: ztna-relay service trust',
    });
  }
  const sessionMs = session === undefined ? {} : { sessionMs: parseDurationMs(session) };
  if (key !== undefined) return { kind: 'key', publicKey: await readPublicKey(key), ...sessionMs };
  if (issuer === undefined) return undefined;
  if (textOf(argv, 'audience') === '' || listOf(argv, 'claim').length === 0) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'an issuer signs for many: say which of its tokens are this service’s',
      hint: 'add --audience TEXT and --claim NAME=VALUE',
    });
  }
  return {
    kind: 'token',
    issuer,
    audience: textOf(argv, 'audience'),
    claims: parseLabels(listOf(argv, 'claim')),
    ...maybe(argv, 'jwks'),
    ...(ca === undefined ? {} : { ca: await readText(ca) }),
    allowPrivate: argv['allowPrivate'] === true,
    ...sessionMs,
  };
}

interface Credential {
  readonly id: string;
  readonly kind: string;
  readonly sessionMs: number;
  readonly publicKey?: string;
  readonly issuer?: string;
  readonly audience?: string;
  readonly claims?: Readonly<Record<string, string>>;
  readonly lastUsedAtMs: number | null;
}

/** One credential on a line of its own. */
function credentialText(credential: Credential): string {
  const {
    id,
    kind,
    sessionMs,
    publicKey,
    issuer,
    audience,
    claims = {},
    lastUsedAtMs,
  } = credential;
  const what =
    kind === 'key'
      ? (publicKey ?? '')
      : [issuer, audience, ...Object.entries(claims).map((pair) => pair.join('='))].join(' ');
  const used =
    lastUsedAtMs === null ? 'never used' : `used ${new Date(lastUsedAtMs).toISOString()}`;
  return `${id} ${kind} ${what} for ${sessionMs / 1_000}s, ${used}`;
}

/** `service …`: machines that sign in without anybody to ask. */
export const serviceLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'add a service account, with a key of its own or tokens of an issuer',
    positionals: name,
    options: {
      group: { type: 'string', array: true, nargs: 1, describe: 'group to be in; made if need be' },
      ...credentialOptions,
    },
    command: 'service.add',
    args: async (argv) => {
      const credential = await credentialOf(argv);
      return {
        ...nameArgs(argv),
        groups: listOf(argv, 'group'),
        ...(credential === undefined ? {} : { credential }),
      };
    },
    show: done((result) => `service ${String(result['name'])} added (${String(result['id'])})`),
  }),
  adminLeaf({
    usage: 'trust <name>',
    describe: 'add a further key or issuer to a service',
    positionals: name,
    options: credentialOptions,
    command: 'service.trust',
    args: async (argv) => {
      const credential = await credentialOf(argv);
      if (credential === undefined) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: 'say what is trusted',
          hint: 'add --key FILE, or --issuer URL --audience TEXT --claim NAME=VALUE',
        });
      }
      return { ...nameArgs(argv), credential };
    },
    show: done((result) => `credential ${String(result['credential'])} is trusted`),
  }),
  adminLeaf({
    usage: 'distrust <name> <id>',
    describe: 'take a key or issuer from a service; its sessions end',
    positionals: {
      ...name,
      id: { type: 'string', describe: 'id of the credential', demandOption: true },
    },
    command: 'service.distrust',
    args: (argv) => ({ ...nameArgs(argv), id: textOf(argv, 'id') }),
    show: done((_, argv) => `credential ${textOf(argv, 'id')} is trusted no more`),
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list service accounts',
    command: 'service.list',
    show: table('name', 'groups', 'state', 'credentials', 'devices', 'lastUsedAtMs'),
  }),
  adminLeaf({
    usage: 'show <name>',
    describe: 'show a service account, what it signs in with and where it runs',
    positionals: name,
    command: 'service.show',
    args: nameArgs,
    show: (result, argv) => {
      const { credentials, ...rest } = result as { readonly credentials: readonly Credential[] };
      fields({ ...rest, credentials: credentials.map(credentialText) }, argv);
    },
  }),
  adminLeaf({
    usage: 'remove <name>',
    describe: 'remove a service account for good, with devices and sessions',
    positionals: name,
    command: 'service.remove',
    args: nameArgs,
    show: done((_, argv) => `service ${textOf(argv, 'name')} removed`),
  }),
];
