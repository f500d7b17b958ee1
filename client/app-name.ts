import { isName, ZtnaError } from '../protocol/index.ts';

/** An app's name as a person typed it. Throws ERR_CONFIG_USAGE before anything is sent anywhere. */
export function parseAppName(text: unknown): string {
  if (typeof text === 'string' && isName(text)) return text;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'that is not the name of an app',
    hint: 'names are lower-case letters, digits, dots and dashes; see: ztna apps',
    hop: 'client',
  });
}
