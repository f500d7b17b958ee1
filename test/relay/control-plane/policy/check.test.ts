import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import {
  checkPolicies,
  findPolicyProblems,
  formatProblem,
  policyLimits,
  policySchema,
  readPolicyFiles,
  type PolicyFiles,
} from '../../../../relay/control-plane/policy/index.ts';
import { temporaryDirectory } from '../fixture.ts';
import { permitAll, permitWhen } from './policy-fixture.ts';

const invalid = { code: 'ERR_POLICY_INVALID' };

/** `file:line:column: message | hint` of each problem. */
async function problemsOf(files: PolicyFiles): Promise<string[]> {
  const { problems } = await findPolicyProblems(files);
  return problems.map((problem) => `${formatProblem(problem)} | ${problem.hint ?? ''}`);
}

test('checkPolicies - names policies by @id, else by their file', async (t) => {
  const { policies } = await checkPolicies({
    'one.cedar': `// é\n${permitAll}`,
    'two.cedar': `@id("first") ${permitAll}\n\n${permitAll} // the last`,
  });
  t.deepEqual(
    policies.map(({ id, file, line }) => [id, file, line]),
    [
      ['one', 'one.cedar', 2],
      ['first', 'two.cedar', 1],
      ['two#2', 'two.cedar', 3],
    ],
  );
});

test('checkPolicies - takes the examples of the command line contract', async (t) => {
  await t.notThrowsAsync(
    checkPolicies({
      'least.cedar': `@id("engineers-reach-wiki")
permit (principal in Group::"engineering", action == Action::"connect", resource == App::"wiki");`,
      'care.cedar': `@id("databases-need-care")
permit (principal in Group::"dba", action == Action::"connect", resource in Site::"berlin")
when { context.posture.disk_encryption == "on" && context.authentication.mfa && context.risk.score < 50 };`,
    }),
  );
});

test('checkPolicies - says file, line, column and the nearest word', async (t) => {
  const error = await t.throwsAsync(
    checkPolicies({
      'a.cedar': permitAll,
      'b.cedar': `// café\n@id("b")\npermit (principal, action, resource)\nwhen { context.posture.disk_encrypton == "on" };`,
    }),
    invalid,
  );
  t.regex(error.message, /^b\.cedar:4:8: attribute `posture\.disk_encrypton`.* not found$/);
  t.like(error, { hint: 'did you mean `disk_encryption`?' });
});

test('findPolicyProblems - finds syntax errors in every policy of every file', async (t) => {
  const problems = await problemsOf({
    'a.cedar': `${permitAll}\npermit (principall, action, resource);`,
    'b.cedar':
      'permit (principal, action, resource) when { 1 = 1 };\nforbid (principal, action, resource)',
  });
  t.is(problems.length, 3);
  t.regex(problems[0] ?? '', /^a\.cedar:2:9: .*principall/);
  t.regex(
    problems[1] ?? '',
    /^b\.cedar:1:45: .*'=' is not a valid operator.* \| try using '==' instead$/,
  );
  t.regex(problems[2] ?? '', /^b\.cedar:2:/);
});

test('findPolicyProblems - refuses what does not fit the types or names nothing', async (t) => {
  for (const [files, expected] of [
    [permitWhen('context.risk.score > "a"'), /unexpected type/],
    [permitWhen('context.posture.edr == "on"'), /edr/],
    [permitWhen('principal.salary > 1'), /salary/],
    [permitWhen('resource.getTag("env") == "prod"'), /tag/],
    [{ 'a.cedar': 'permit (principal in Team::"x", action, resource);' }, /Team/],
    [{ 'a.cedar': 'permit (principal, action == Action::"conect", resource);' }, /conect/],
    [{ 'a.cedar': 'permit (principal == ?principal, action, resource);' }, /./],
    [{ 'a.cedar': `@id("x") ${permitAll} @id("x") ${permitAll}` }, /two policies with the id x/],
    [{ 'a.cedar': `@id("no id") ${permitAll}` }, /is no policy id/],
    [{ 'a.cedar': `${permitAll} }` }, /./],
  ] as const) {
    const problems = await problemsOf(files);
    t.regex(problems.join('\n'), expected, JSON.stringify(files));
  }
});

test('findPolicyProblems - stops deep, long and large texts before Cedar sees them', async (t) => {
  const parens = (depth: number) => '('.repeat(depth) + 'true' + ')'.repeat(depth);
  const cases: [PolicyFiles, RegExp][] = [
    [permitWhen(parens(200)), /^p\.cedar:1:\d+: brackets are nested deeper than 50/],
    [permitWhen(parens(5_000)), /nested deeper/],
    [permitWhen('['.repeat(60)), /nested deeper/],
    [{ 'p.cedar': `${')'.repeat(500)}${'('.repeat(500)}` }, /nested deeper/],
    [permitWhen(Array(2_000).fill('true').join(' || ')), /more than 160 operators/],
    [permitWhen(`context${'.a'.repeat(1_000)}`), /more than 160 operators/],
    [permitWhen('if true then '.repeat(500)), /more than 160 operators/],
    [
      { 'p.cedar': `permit (principal, action, resource)${' when {true}'.repeat(900)};` },
      /operators/,
    ],
    [permitWhen(`"${'a'.repeat(5_000)}" like "*"`), /longer than 2048 characters/],
    [
      { 'p.cedar': `// ${'x'.repeat(policyLimits.fileBytes)}\n${permitAll}` },
      /larger than 65536 bytes/,
    ],
    [
      Object.fromEntries(Array.from({ length: 501 }, (_, i) => [`p${String(i)}.cedar`, permitAll])),
      /too many/,
    ],
    [
      Object.fromEntries(
        Array.from({ length: 3 }, (_, i) => [`p${String(i)}.cedar`, permitAll.repeat(700)]),
      ),
      /more than 2000 policies/,
    ],
  ];
  for (const [files, expected] of cases) {
    const problems = await problemsOf(files);
    t.is(problems.length, 1);
    t.regex(problems[0] ?? '', expected);
  }
});

test('findPolicyProblems - takes what lies just within the limits', async (t) => {
  for (const files of [
    permitWhen('('.repeat(49) + 'true' + ')'.repeat(49)),
    permitWhen(Array(158).fill('true').join(' && ')),
    permitWhen(`context.device.hostname like "${'a'.repeat(2_046)}"`),
  ]) {
    t.deepEqual(await problemsOf(files), []);
  }
});

test('findPolicyProblems - is not fooled by brackets and semicolons in texts and comments', async (t) => {
  const { policies, problems } = await findPolicyProblems({
    'a.cedar': `// ((((( ; "
permit (principal, action, resource) // ; }
when { context.device.hostname == "a;\\"(((" };
${permitAll} // permit`,
  });
  t.deepEqual(problems, []);
  t.deepEqual(
    policies.map(({ line }) => line),
    [2, 4],
  );
});

test('findPolicyProblems - gives up a validation that takes too long', async (t) => {
  const { problems } = await findPolicyProblems({ 'a.cedar': permitAll }, { timeoutMs: 0 });
  t.regex(problems[0]?.message ?? '', /too long/);
});

test('findPolicyProblems - warns of a policy that can never apply', async (t) => {
  const { problems, warnings } = await findPolicyProblems(permitWhen('false'));
  t.deepEqual(problems, []);
  t.regex(warnings[0]?.message ?? '', /impossible/);
});

test('policySchema - knows a deployment’s own checks and refuses names that are taken', async (t) => {
  const files = permitWhen('context.posture.edr == "on"');
  await t.notThrowsAsync(checkPolicies(files, { extraChecks: ['edr'] }));
  for (const extraChecks of [['firewall'], ['age_seconds'], ['a b'], ['A'], ['edr', 'edr'], ['']]) {
    t.throws(() => policySchema(extraChecks), { code: 'ERR_CONFIG_INVALID' });
  }
});

test('readPolicyFiles - reads a directory’s policies, or one file, and nothing too large', (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'empty'));
  writeFileSync(join(directory, 'b.cedar'), permitAll);
  writeFileSync(join(directory, 'a.cedar'), '// none');
  writeFileSync(join(directory, 'notes.txt'), 'no policy');
  t.deepEqual(readPolicyFiles(directory), { 'a.cedar': '// none', 'b.cedar': permitAll });
  t.deepEqual(readPolicyFiles(join(directory, 'b.cedar')), { 'b.cedar': permitAll });
  const missing = { code: 'ERR_CONFIG_NOT_FOUND' };
  t.throws(() => readPolicyFiles(join(directory, 'none')), missing);
  t.throws(() => readPolicyFiles(join(directory, 'empty')), missing);
  writeFileSync(join(directory, 'c.cedar'), ' '.repeat(policyLimits.fileBytes + 1));
  t.throws(() => readPolicyFiles(directory), invalid);
});
