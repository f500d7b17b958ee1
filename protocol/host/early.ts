/**
 * The door for what a program needs before it knows which command it is to run. Nothing behind it opens a socket or
 * builds a schema, so that `--help` and a mistyped command are answered at once.
 */
export { ZtnaError } from '../errors.ts';
export { notAvailableYet, oneValue, optionalValue, runCommandLine } from './command-line.ts';
export { environmentNames, warnUnknownEnvironment } from './environment.ts';
