/** Files that mostly wait, in the order of what they take: begun first, the rest fills their pauses. */
const longFirst = [
  'test/e2e/',
  'test/packaging/',
  'test/integration/',
  'test/adversarial/',
  'test/faults/',
  'test/relay/control-plane/service/',
  'test/relay/control-plane/signals/',
  'test/relay/cli/',
  'test/relay/data-plane/',
  'test/connector/',
];

const rank = (file) => {
  const at = longFirst.findIndex((folder) => file.includes(folder));
  return at === -1 ? longFirst.length : at;
};

export default {
  extensions: { ts: 'module' },
  files: ['test/**/*.test.ts'],
  timeout: '2m',
  workerThreads: true,
  concurrency: 4, // more than cores: those files wait for programs half of their time
  sortTestFiles: (a, b) => rank(a) - rank(b) || (a < b ? -1 : 1),
};
