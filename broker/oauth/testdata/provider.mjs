// An authorization server on npm's oidc-provider, for TestRealProvider.
//
// argv: node_modules, port, the client's public key as a JWK, token format.
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const [modules, port, jwk, format] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${modules}/${path}`));
const { default: Provider, errors } = await load('oidc-provider/lib/index.js');
const { createLocalJWKSet, jwtVerify } = await load('jose/dist/webapi/index.js');

const issuer = `http://127.0.0.1:${port}`;
const jwks = { keys: [JSON.parse(jwk)] };
const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
const resource = 'https://tool.example/mcp';

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'writ', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'EdDSA', jwks,
      grant_types: ['client_credentials', exchange], redirect_uris: [], response_types: [],
    },
    { client_id: 'tool', client_secret: 'the-tools-own-secret', grant_types: [], redirect_uris: [], response_types: [] },
  ],
  clientAuthMethods: ['private_key_jwt', 'client_secret_basic'],
  enabledJWA: { clientAuthSigningAlgValues: ['EdDSA', 'Ed25519', 'ES256'] },
  scopes: ['orders.read', 'orders.write'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async () => true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      async getResourceServerInfo(ctx, indicator) {
        if (indicator !== resource) throw new errors.InvalidTarget();
        return { scope: 'orders.read orders.write', audience: indicator, accessTokenTTL: 60, accessTokenFormat: format };
      },
    },
  },
});

// The provider leaves the exchange of tokens to whoever runs it: this one
// takes what the client itself signed about an agent.
provider.registerGrantType(exchange, async (ctx) => {
  const { client, params } = ctx.oidc;
  try {
    await jwtVerify(params.subject_token, createLocalJWKSet(jwks), { issuer: 'writ', audience: issuer, requiredClaims: ['sub', 'exp', 'jti'] });
  } catch {
    throw new errors.InvalidGrant('the subject token does not verify');
  }
  const { ClientCredentials, ResourceServer } = ctx.oidc.provider;
  const token = new ClientCredentials({ client, scope: params.scope });
  token.resourceServer = new ResourceServer(resource, { scope: 'orders.read orders.write', audience: resource, accessTokenTTL: 60, accessTokenFormat: format });
  ctx.body = { access_token: await token.save(), token_type: token.tokenType, expires_in: token.expiration, scope: token.scope };
}, ['subject_token', 'subject_token_type', 'requested_token_type', 'scope', 'resource', 'audience']);

createServer(provider.callback()).listen(Number(port), '127.0.0.1', () => console.log('listening'));
