// The official client with nothing but an agent's own key: it is turned away,
// finds out where tokens come from, gets one that is bound to a key of its
// own, and proves that key with every request. It knows no Writ.
import { Client, DpopSession, PrivateKeyJwtProvider, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, issuer, agent, mode, tool, args] = process.argv.slice(2);
const provider = new PrivateKeyJwtProvider({ clientId: agent, privateKey: process.env.AGENT_KEY, algorithm: "ES256", jwtLifetimeSeconds: 60, expectedIssuer: issuer });
const session = DpopSession.create();
provider.dpop = () => session;
const client = new Client({ name: "agent", version: "1" }, mode === "auto" ? { versionNegotiation: { mode } } : {});
await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider: provider }));
const { tools } = await client.listTools();
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
console.log(JSON.stringify({ tools: tools.map((t) => t.name), text: result.content[0].text, error: result.isError ?? false, type: provider.tokens().token_type }));
await client.close();
