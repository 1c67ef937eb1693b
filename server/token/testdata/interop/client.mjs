// A client of somebody else's making against Writ's token endpoint: it finds
// the endpoint from the resource alone, authenticates by private_key_jwt,
// gets a token bound to a fresh key by each grant, and calls the resource.
//
// What it is told comes as JSON on standard input:
//   {"resource": URL, "agent": SPIFFE ID, "key": private JWK of the agent}
// and what came of it leaves as JSON on standard output.
import { text } from 'node:stream/consumers';
import * as oauth from 'openid-client';

const { resource, agent, key } = JSON.parse(await text(process.stdin));
const { subtle } = globalThis.crypto;
const algorithms = { OKP: { name: 'Ed25519' }, EC: { name: 'ECDSA', namedCurve: key.crv } };
const agentKey = await subtle.importKey('jwk', key, algorithms[key.kty], false, ['sign']);

// RFC 9728, then RFC 8414.
const at = new URL(resource);
const about = await (await fetch(new URL('/.well-known/oauth-protected-resource' + at.pathname, at))).json();
if (about.resource !== resource) throw new Error(`metadata of ${about.resource}, not of ${resource}`);
const config = await oauth.discovery(
  new URL(about.authorization_servers[0]), agent, undefined, oauth.PrivateKeyJwt(agentKey),
  { algorithm: 'oauth2', execute: [oauth.allowInsecureRequests] },
);

const b64 = (v) => Buffer.from(v).toString('base64url');

// statement is the agent's word about itself (RFC 7523, 3).
async function statement() {
  const now = Math.floor(Date.now() / 1000);
  const alg = key.kty === 'EC' ? 'ES256' : 'EdDSA';
  const claims = { iss: agent, sub: agent, aud: config.serverMetadata().issuer, jti: crypto.randomUUID(), iat: now, exp: now + 60 };
  const signed = b64(JSON.stringify({ alg, typ: 'JWT' })) + '.' + b64(JSON.stringify(claims));
  const by = key.kty === 'EC' ? { name: 'ECDSA', hash: 'SHA-256' } : { name: 'Ed25519' };
  return signed + '.' + b64(await subtle.sign(by, agentKey, Buffer.from(signed)));
}

const out = {};
for (const alg of ['Ed25519', 'ES256']) {
  const DPoP = oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair(alg));
  const grants = {
    client_credentials: () => oauth.clientCredentialsGrant(config, { resource }, { DPoP }),
    token_exchange: async () => oauth.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
      resource, subject_token: await statement(), subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    }, { DPoP }),
  };
  for (const [name, grant] of Object.entries(grants)) {
    const tokens = await grant();
    const answer = await oauth.fetchProtectedResource(config, tokens.access_token, at, 'POST', '{}', new Headers({ 'content-type': 'application/json' }), { DPoP });
    out[`${alg} ${name}`] = { type: tokens.token_type, expires: tokens.expires_in, status: answer.status, who: await answer.text() };
  }
}

// Without a proof nothing is issued, and the error is one it understands.
out.bare = await oauth.clientCredentialsGrant(config, { resource }).then(() => 'issued', (e) => e.error ?? String(e));
out.scope = await oauth.clientCredentialsGrant(config, { resource, scope: 'admin' }, {
  DPoP: oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair('Ed25519')),
}).then(() => 'issued', (e) => e.error ?? String(e));
console.log(JSON.stringify(out));
