package admin

// routes are all there is. Only what is marked as a grant, or vouched, looks
// at an operator's proof; only a GET changes nothing at all.
func routes() []route {
	return []route{
		at(reads, "status", "GET /status", (*Server).status),
		at(reads, "doctor", "GET /doctor", (*Server).doctor),

		at(reads, "list_calls", "GET /calls", (*Server).listCalls),
		at(reads, "get_call", "GET /calls/{call}", (*Server).getCall),
		at(shows, "show_call", "POST /calls/{call}/show", (*Server).showCall),
		at(shows, "explain_call", "POST /calls/{call}/explain", (*Server).explain),
		at(reads, "replay_call", "GET /calls/{call}/replay", (*Server).replay),
		at(reads, "tail_records", "GET /records", (*Server).tail),
		at(reads, "get_receipt", "GET /receipts/{of}", (*Server).getReceipt),

		at(reads, "list_tasks", "GET /tasks", (*Server).listTasks),
		at(reads, "get_task", "GET /tasks/{task}", (*Server).getTask),
		at(grants, "open_task", "POST /tasks", (*Server).openTask),
		at(shows, "show_task", "POST /tasks/{task}/show", (*Server).showTask),
		at(removes, "end_task", "POST /tasks/{task}/end", (*Server).endTask),
		at(vouched, "run", "POST /runs", (*Server).run),
		at(removes, "renew_token", "POST /runs/{task}/token", (*Server).renew),

		at(reads, "list_approvals", "GET /approvals", (*Server).listApprovals),
		at(reads, "get_approval", "GET /approvals/{approval}", (*Server).getApproval),
		at(shows, "show_approval", "POST /approvals/{approval}/show", (*Server).showApproval),
		at(grants, "approve", "POST /approvals/{approval}/approve", (*Server).approve),
		at(removes, "deny", "POST /approvals/{approval}/deny", (*Server).deny),

		at(reads, "list_agents", "GET /agents", (*Server).listAgents),
		at(grants, "reinstate", "POST /agents/reinstate", (*Server).reinstate),
		at(reads, "list_tools", "GET /tools", (*Server).listTools),
		at(reads, "get_tool", "GET /tools/{tool}", (*Server).getTool),
		at(grants, "review_tools", "POST /tools/review", (*Server).reviewTools),
		at(reads, "get_policy", "GET /policy", (*Server).getPolicy),
		at(grants, "apply_policy", "POST /policy/apply", (*Server).apply),

		at(removes, "revoke", "POST /revoke", (*Server).revoke),
		at(removes, "halt", "POST /halt", (*Server).halt),
		at(grants, "lift", "POST /lift", (*Server).lift),
	}
}
