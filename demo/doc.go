// Package demo is a small world for Writ to govern: tool servers that really
// do something, an authorization server that really issues and revokes, an
// agent that really calls, and a story for them.
//
// Acme's support desk has an agent. Its tools are a helpdesk, where strangers
// write; a mailer, which reaches strangers; the company's payments, which want
// a credential; and its files, the customer list among them. One ticket has
// been written for the agent rather than for the desk.
//
// Each server is a process of its own, built on the official MCP SDK: what
// Writ is shown with is nothing that Writ has made easy for itself. What a
// server did can be read on a plain page beside its endpoint, so that a claim
// about an effect is checked where the effect is.
package demo
