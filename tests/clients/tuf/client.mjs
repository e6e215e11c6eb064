// Verifies a bundle with sigstore (npm), whose trust comes from a TUF repository.
//
//     client.mjs verify TUF_URL ROOT CACHE EMAIL ISSUER BUNDLE FILE
//
// SIGSTORE names the folder with its `node_modules`. A refusal is one line on standard error: its code and its message.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.SIGSTORE, 'package.json'));
const sigstore = require('sigstore');

const [, tufMirrorURL, tufRootPath, tufCachePath, certificateIdentityEmail, certificateIssuer, bundle, file] =
  process.argv.slice(2);
try {
  await sigstore.verify(JSON.parse(readFileSync(bundle, 'utf8')), readFileSync(file), {
    tufMirrorURL, tufRootPath, tufCachePath, certificateIdentityEmail, certificateIssuer,
  });
} catch (error) {
  console.error([error.code, error.message, error.cause?.message].filter(Boolean).join(': '));
  process.exit(1);
}
