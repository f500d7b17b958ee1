import tseslint from 'typescript-eslint';

/** Folders import the wire through its doors only, and never each other. */
const doors = {
  regex: '/protocol/(?!index\\.ts$|host/(index|early|compile-cache)\\.ts$)',
  message:
    'Import protocol/index.ts or protocol/host/index.ts; early.ts and compile-cache.ts before a command is known.',
};
const notFrom = (...folders) => ({
  'no-restricted-imports': [
    'error',
    {
      patterns: [
        doors,
        ...folders.map((folder) => ({
          regex: `/${folder}/`,
          message: `No import from ${folder}/.`,
        })),
      ],
    },
  ],
});

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'eslint.config.js'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/return-await': ['error', 'in-try-catch'],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: true },
      ],
      'no-restricted-properties': [
        'error',
        { object: 'Math', property: 'random', message: 'Use node:crypto.' },
      ],
      'no-console': 'error',
    },
  },
  { files: ['client/**/*.ts'], rules: notFrom('connector', 'relay') },
  { files: ['connector/**/*.ts'], rules: notFrom('client', 'relay') },
  { files: ['relay/**/*.ts'], rules: notFrom('client', 'connector') },
  { files: ['relay/data-plane/**/*.ts'], rules: notFrom('client', 'connector', 'control-plane') },
  {
    files: ['protocol/**/*.ts'],
    ignores: ['protocol/host/**'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          paths: ['ws', 'p-retry', 'yargs'],
          patterns: [
            { regex: '^node:(?!crypto$)', message: 'protocol/ is pure: node:crypto only.' },
            { regex: '/host/', message: 'protocol/ does not know its host.' },
          ],
        },
      ],
      'no-restricted-globals': [
        'error',
        'process',
        'setTimeout',
        'setInterval',
        'setImmediate',
        'Date',
        'performance',
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      'no-console': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
);
