export { createAuthority, loadAuthority, type Authority } from './authority.ts';
export { backdateMs, type IssuedCertificate, type LeafRequest } from './certificate.ts';
export {
  maxRequestLength,
  verifyCertificateRequest,
  type ProvedPublicKey,
} from './certificate-request.ts';
export { createFile, createSigningKeyFile, readKeyFile } from './key-file.ts';
export { openSealer, Sealer, writeSealKey } from './sealer.ts';
