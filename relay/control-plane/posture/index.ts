export type { HeardPosture } from './book.ts';
export { PostureChallenge } from './challenge.ts';
export { toPostureFacts } from './facts.ts';
export { Postures } from './postures.ts';
