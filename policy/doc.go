// Package policy decides. It holds Cedar policies, validated against a schema
// that it generates from the tools as pinned, and answers a [writ.Query] with
// a [writ.Decision]. A decision is a pure function of the query and the
// bundle: it reads no clock, no network and no random source, so that any
// recorded decision can be made again.
//
// # What policy sees
//
// The principal is the agent, the action is one tool, the resource is that
// tool. Actions lie in groups: all, tier:…, class:…, kind:…, upstream:… and
// fetch. The rest is in the context; [Bundle.Files] holds the schema, whose
// comments say what each part means.
//
// The arguments are in context.args, with the fixed types of their JSON
// Schema: string is String, boolean is Bool, integer is Long, number is
// decimal, an array of one type is a Set, an object that is closed is a
// record, and a type that may be null is an optional attribute whose pointer
// is in context.nulls when it is. Anything else is JSON: the canonical text of
// that subtree. A value that does not fit its type, or that the schema does
// not declare, refuses the call: nothing is left out.
//
// # What is refused at load
//
// A name that the schema does not have, even under `has`; an argument pointer,
// a tool or a tier that does not exist; a policy that reads arguments of no
// particular tool; one that no call could satisfy, as far as its scope and its
// types tell; one under which a stronger assurance could permit less;
// templates; annotations nobody reads.
//
// # Assurance
//
// A policy may ask for people: permit … when { context.assurance.reviewers >=
// 1 }, or forbid … unless. Nobody annotates a tool with who must approve it:
// where the answer is no, the same policies are asked again as if people had
// been, rung by rung, and the weakest rung that permits is what is required. A
// call that was approved is decided again, with the assurance reached.
//
// # What policy cannot relax
//
// An agent that is not active, a task that is not open, a tool outside the
// task's grant or beyond its bounds, a spent budget, a tool that is not the
// one the bundle was validated against. These are checked in Go, before Cedar.
//
// A bound on a list holds for every element; what is absent keeps no bound.
//
// Any error in evaluating any policy denies. No policy denies.
//
// # Who is told what
//
// The decision names the policies that determined it. [Bundle.Explain] tells
// an operator what would have permitted, having tried it. [Refusal] tells an
// agent a code, an argument, its own bounds and a remedy, and nothing of any
// policy.
package policy
