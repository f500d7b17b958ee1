export { isSamePosture, type HeardPosture } from './book.ts';
export { PostureChallenge } from './challenge.ts';
export { postureAgeSeconds, toPostureFacts } from './facts.ts';
export { Postures } from './postures.ts';
