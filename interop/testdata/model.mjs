// A model that follows a script: an OpenAI-compatible server (chat completions
// and responses, plain and streamed). It has no state: which step it is at, it
// tells by how many tool results it is shown.
import { createServer } from "node:http";

export function model(script) {
  const server = createServer((req, res) => {
    let body = "";
    req.on("data", (chunk) => (body += chunk));
    req.on("end", () => {
      const ask = JSON.parse(body);
      if (req.url.endsWith("/responses")) return responses(ask, script, res);
      const done = ask.messages.filter((m) => m.role === "tool").length;
      const step = script[done];
      const message = step
        ? { role: "assistant", content: null, tool_calls: [{ id: "call_" + done, type: "function", function: { name: step.tool, arguments: JSON.stringify(step.args) } }] }
        : { role: "assistant", content: "done" };
      const reason = step ? "tool_calls" : "stop";
      json(res, { id: "x", object: "chat.completion", created: 1, model: ask.model, choices: [{ index: 0, message, finish_reason: reason }], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } });
    });
  });
  return new Promise((ok) => server.listen(0, "127.0.0.1", () => ok({ url: "http://127.0.0.1:" + server.address().port + "/v1", close: () => server.close() })));
}

function responses(ask, script, res) {
  const done = (Array.isArray(ask.input) ? ask.input : []).filter((i) => i.type === "function_call_output").length;
  const step = script[done];
  const output = step
    ? [{ type: "function_call", id: "fc_" + done, call_id: "call_" + done, name: step.tool, arguments: JSON.stringify(step.args), status: "completed" }]
    : [{ type: "message", id: "msg_1", role: "assistant", status: "completed", content: [{ type: "output_text", text: "done", annotations: [] }] }];
  json(res, { id: "resp_" + done, object: "response", created_at: 1, status: "completed", model: ask.model, output, usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2, input_tokens_details: { cached_tokens: 0 }, output_tokens_details: { reasoning_tokens: 0 } } });
}

function json(res, value) {
  res.writeHead(200, { "content-type": "application/json" });
  res.end(JSON.stringify(value));
}
