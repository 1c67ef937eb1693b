// The OpenAI Agents SDK, with a scripted model and nothing but the endpoint
// that it was given. It prints each tool result, a line of JSON each.
import { Agent, MCPServerStreamableHttp, OpenAIProvider, Runner, setTracingDisabled } from "@openai/agents";
import { model } from "./model.mjs";

setTracingDisabled(true);
const llm = await model(JSON.parse(process.argv[2]));
const mcp = new MCPServerStreamableHttp({ url: process.env.WRIT_MCP_URL, name: "writ" });
await mcp.connect();
try {
  const runner = new Runner({ modelProvider: new OpenAIProvider({ baseURL: llm.url, apiKey: "none", useResponses: true }), tracingDisabled: true });
  const result = await runner.run(new Agent({ name: "agent", model: "scripted", instructions: "go", mcpServers: [mcp] }), "go");
  for (const item of result.newItems) if (item.type === "tool_call_output_item") console.log(JSON.stringify({ output: item.output }));
  console.log(JSON.stringify({ text: result.finalOutput }));
} finally {
  await mcp.close();
  llm.close();
}
