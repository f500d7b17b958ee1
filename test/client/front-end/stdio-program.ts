/** Says hello, ends standard output, then stays until standard input ends. Run by stdio-output.test.ts. */
import { openStdioOutput } from '../../../client/front-end/stdio-output.ts';

process.stdout.on('error', () => undefined); // as every command does: the standard stream exists beside ours
const output = openStdioOutput();
output.stream.write('hello\n');
output.end(() => process.stderr.write('ended\n'));
process.stdin.resume();
