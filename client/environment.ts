import { environmentNames } from '../protocol/host/early.ts';

/** The environment variables that `ztna` reads, with what each is for: the closed list that `--help` shows. */
export const environment: Readonly<Record<string, string>> = {
  ...environmentNames,
  ZTNA_HOME: 'directory for the state of all profiles',
  ZTNA_PROFILE: 'profile to use when --profile is absent',
  BROWSER: 'program that shows a page, given its address; none: there is no browser here',
  ZTNA_HOST: 'set by `ztna run` for its child, never read',
  ZTNA_PORT: 'set by `ztna run` for its child, never read',
};

/** The variables that a child of `ztna run` must not inherit: they open or point at this machine's keys. */
export function withoutSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const isKept = (name: string): boolean =>
    !name.toUpperCase().startsWith('ZTNA_') && name !== 'CREDENTIALS_DIRECTORY';
  return Object.fromEntries(Object.entries(env).filter(([name]) => isKept(name)));
}
