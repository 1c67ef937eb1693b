// Package writ holds the nouns of Writ, a gateway that governs the tool calls
// of AI agents.
//
// Every tool call is an identity decision of its own. A call goes through ten
// steps, in one place, package gate: it is identified, placed, traced,
// decided, approved where policy asks for it, committed, leased a credential,
// executed, labelled, and its outcome recorded before it is released.
//
// This package is plain data that crosses packages and lands in the record. It
// imports only the standard library, does no I/O, and knows neither HTTP nor
// MCP nor SQL.
//
// Zero values refuse: a zero Decision denies, a zero Tier is privileged, a
// zero Label is untrusted and restricted, a zero Assurance is none, a zero
// Origin is untrusted.
package writ
