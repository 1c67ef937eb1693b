// The AI SDK, with a scripted model and nothing but the endpoint that it was
// given. It prints each tool result, a line of JSON each.
import { createMCPClient } from "@ai-sdk/mcp";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs } from "ai";
import { model } from "./model.mjs";

const llm = await model(JSON.parse(process.argv[2]));
const mcp = await createMCPClient({ transport: { type: "http", url: process.env.WRIT_MCP_URL } });
try {
  const provider = createOpenAICompatible({ name: "scripted", baseURL: llm.url, apiKey: "none" });
  const { steps, text } = await generateText({ model: provider("scripted"), tools: await mcp.tools(), stopWhen: stepCountIs(10), prompt: "go" });
  for (const step of steps) for (const r of step.content) {
    if (r.type === "tool-result") console.log(JSON.stringify({ tool: r.toolName, output: r.output }));
    if (r.type === "tool-error") console.log(JSON.stringify({ tool: r.toolName, error: String(r.error) }));
  }
  console.log(JSON.stringify({ text }));
} finally {
  await mcp.close();
  llm.close();
}
