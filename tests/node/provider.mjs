// An OpenID provider for the tests: the npm package oidc-provider with the people and clients of a file.
//
//     node provider.mjs SETTINGS.json
//
// Prints its issuer as the first line of stdout, and ends when its stdin does: it never outlives who started it.
// Everybody signs in with their name and any password.
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const resolve = createRequire(pathToFileURL(`${settings.packages}/`)).resolve;
const { default: Provider } = await import(pathToFileURL(resolve('oidc-provider')));

// Its keys are new ones at every start. They go by way of PEM: a collection of garbage while a key that was just made is
// exported as JWK may wait for that key for ever (Node.js 20).
function key(alg) {
  const [kind, options] = { RS256: ['rsa', { modulusLength: 2048 }], ES256: ['ec', { namedCurve: 'P-256' }] }[alg];
  const [publicKeyEncoding, privateKeyEncoding] = ['spki', 'pkcs8'].map((type) => ({ type, format: 'pem' }));
  const pair = generateKeyPairSync(kind, { ...options, publicKeyEncoding, privateKeyEncoding });
  return { ...createPrivateKey(pair.privateKey).export({ format: 'jwk' }), alg, use: 'sig' };
}

const server = createServer();
await new Promise((listening) => server.listen(settings.port, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: { keys: [key('RS256'), key('ES256')] },
  // Otherwise what a scope brings is told by the userinfo endpoint alone (OpenID Connect Core, 5.4).
  conformIdTokenClaims: !settings.claims_in_token,
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups', 'roles'], email: ['email', 'email_verified'] },
  findAccount: (_, name) => {
    const person = settings.people[name];
    return person && { accountId: name, claims: async () => ({ sub: name, ...person }) };
  },
  cookies: { keys: ['a cookie of a test'] },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'HS256'] },
  features: { devInteractions: { enabled: true } },
  pkce: { required: () => true },
});
server.on('request', provider.callback());
console.log(issuer);
process.stdin.on('end', () => process.exit(0)).resume();
