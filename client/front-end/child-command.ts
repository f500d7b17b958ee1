import { withoutSecrets } from '../environment.ts';
import type { ListenAddress } from './listen-address.ts';

/** The command of `ztna run` with `{{host}}` and `{{port}}` replaced; an argument stays one argument. */
export function fillCommand(command: readonly string[], address: ListenAddress): string[] {
  return command.map((argument) =>
    argument.replaceAll('{{host}}', address.host).replaceAll('{{port}}', String(address.port)),
  );
}

/** What the child of `ztna run` inherits: everything but what is ours, and where to find the app. */
export function childEnvironment(
  env: NodeJS.ProcessEnv,
  address: ListenAddress,
): NodeJS.ProcessEnv {
  return {
    ...withoutSecrets(env),
    ZTNA_HOST: address.host,
    ZTNA_PORT: String(address.port),
  };
}
