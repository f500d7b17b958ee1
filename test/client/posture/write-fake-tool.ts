import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const fakeTool = fileURLToPath(new URL('fake-tool', import.meta.url));

/** Makes `file` a program that runs this shell script, in place of what is there. */
export async function writeFakeTool(file: string, body: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.sh`, `${body}\n`);
  await rm(file, { force: true });
  await symlink(fakeTool, file);
}
