import * as v from 'valibot';
import { ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';

/** What a command may do; the authorizer decides by it. */
export type CommandAccess = 'read' | 'change';

/** One administration command. */
export interface Command {
  readonly name: string;
  readonly access: CommandAccess;
  readonly run: (services: Services, args: unknown, actor: string) => Promise<unknown>;
}

/** Defines a command whose arguments are checked before it runs. A change records itself in the audit log. */
export function defineCommand<S extends v.GenericSchema<unknown, unknown>>(
  name: string,
  access: CommandAccess,
  schema: S,
  run: (services: Services, args: v.InferOutput<S>, actor: string) => Promise<unknown>,
): Command {
  return {
    name,
    access,
    run: (services, args, actor) => {
      const result = v.safeParse(schema, args);
      if (!result.success) {
        const [issue] = result.issues;
        const at = v.getDotPath(issue);
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: `${name}: ${at === null ? issue.message : `${at}: ${issue.message}`}`,
        });
      }
      return run(services, result.output, actor);
    },
  };
}

/**
 * Decides whether an actor may run a command. The one actor of today is who may open the admin socket; roles of
 * enrolled administrators will be decided here and nowhere else.
 */
export function authorize(actor: string, command: Command): void {
  const isLocal = /^uid:\d+$/.test(actor) || actor === 'uid:unknown';
  if (!isLocal) {
    throw new ZtnaError('ERR_POLICY_DENIED', {
      message: `${actor} may not ${command.access === 'read' ? 'read' : 'change'} this`,
    });
  }
}
