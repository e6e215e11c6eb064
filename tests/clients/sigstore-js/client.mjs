// A command line for sigstore (npm), whose own reads trust from a TUF repository only.
//
//     client.mjs sign SIGNING_CONFIG TOKEN FILE BUNDLE      a file
//     client.mjs attest SIGNING_CONFIG TOKEN FILE BUNDLE    a file as the payload of an attestation
//     client.mjs sign-unlogged CA_URL TSA_URL TOKEN FILE BUNDLE      as npm's own calls do, without a signature log
//     client.mjs attest-unlogged CA_URL TSA_URL TOKEN FILE BUNDLE
//     client.mjs verify TRUSTED_ROOT IDENTITY ISSUER LOGS BUNDLE [FILE]    LOGS: how many signature logs must hold it
//
// SIGSTORE names the folder with its `node_modules`. A refusal is one line on standard error: its code and its message.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.SIGSTORE, 'package.json'));
const { bundleFromJSON, bundleToJSON } = require('@sigstore/bundle');
const { SigningConfig, TrustedRoot } = require('@sigstore/protobuf-specs');
const { bundleBuilderFromSigningConfig } = require('@sigstore/sign');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const sigstore = require('sigstore');

const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

const commands = {
  sign: (...paths) => create('messageSignature', ...paths),
  attest: (...paths) => create('dsseEnvelope', ...paths),

  async 'sign-unlogged'(fulcioURL, tsaServerURL, identityToken, file, bundle) {
    const options = { fulcioURL, tsaServerURL, identityToken, tlogUpload: false };
    writeJSON(bundle, await sigstore.sign(readFileSync(file), options));
  },

  async 'attest-unlogged'(fulcioURL, tsaServerURL, identityToken, file, bundle) {
    const options = { fulcioURL, tsaServerURL, identityToken, tlogUpload: false };
    writeJSON(bundle, await sigstore.attest(readFileSync(file), PAYLOAD_TYPE, options));
  },

  verify(trustedRoot, identity, issuer, logs, bundle, file) {
    const trust = toTrustMaterial(TrustedRoot.fromJSON(readJSON(trustedRoot)));
    const entity = toSignedEntity(bundleFromJSON(readJSON(bundle)), file && readFileSync(file));
    const verifier = new Verifier(trust, { ctlogThreshold: 1, tlogThreshold: Number(logs) });
    verifier.verify(entity, { subjectAlternativeName: identity, extensions: { issuer } });
  },
};

async function create(bundleType, signingConfig, token, file, bundle) {
  const builder = bundleBuilderFromSigningConfig({
    bundleType,
    signingConfig: SigningConfig.fromJSON(readJSON(signingConfig)),
    identityProvider: { getToken: async () => token },
  });
  writeJSON(bundle, bundleToJSON(await builder.create({ data: readFileSync(file), type: PAYLOAD_TYPE })));
}

const readJSON = (path) => JSON.parse(readFileSync(path, 'utf8'));
const writeJSON = (path, value) => writeFileSync(path, JSON.stringify(value));

const [name, ...operands] = process.argv.slice(2);
try {
  await commands[name](...operands);
} catch (error) {
  console.error([error.code, error.message, error.cause?.message].filter(Boolean).join(': '));
  process.exit(1);
}
