// Package capability is what a tool server imports to check a writ: offline,
// with nothing but the gateway's public keys and the standard library.
//
// A capability is a short-lived, single-use order for exactly one action. It
// names its one receiver, the key of its one presenter, the agent and whoever
// delegated to it, the task, the tool and its definition, the digest of the
// arguments, and the policy it was decided under. It is not a bearer token:
// whoever presents it proves its key, by a proof made for this one request or
// by mutual TLS.
//
// # On the wire
//
// A request carries
//
//	Writ-Capability: <the capability>
//	Writ-Proof:      <the proof>
//
// both compact JWS (RFC 7515), base64url without padding and with one
// spelling. Over mutual TLS the second may be absent: then the key of the
// peer's certificate is the one the capability must name.
//
// The capability's header has these members and no others, its kid being the
// RFC 7638 thumbprint of the gateway's key:
//
//	{"alg":"EdDSA","kid":"…","typ":"writ-cap+jwt"}
//
// and its claims these (RFC 7519, RFC 7800, RFC 8693), times in seconds, sub
// only if there is a user, act nested from the agent to the first delegator:
//
//	{"act":{"cnf":{"jkt":"…"},"sub":"spiffe://…"},"aud":"…","cnf":{"jkt":"…"},
//	 "exp":…,"iat":…,"iss":"…","jti":"cap_…","sub":"…",
//	 "writ":{"v":1,"time":<Unix milliseconds>,"call":"call_…","task":"task_…",
//	  "environment":"…","kind":"tool","tool":"payments.pay","name":"pay",
//	  "definition":"sha256:…","arguments":"sha256:…","action":"sha256:…",
//	  "bundle":"sha256:…","tier":"privileged","approval":"appr_…"}}
//
// with inputs, state and preconditions, digests like arguments, only if the
// action has them, and approval only if a person approved it. The digest of
// the arguments is
//
//	"sha256:" + hex(SHA-256("writ/arguments/v1" + 0x00 + canonical arguments))
//
// over the form of package canon, in which the gateway forwards them: a
// server that has the bytes as they came hashes those.
//
// The proof's header is {"alg":…,"jwk":{…},"typ":"writ-proof+jwt"}, the key
// Ed25519, or ECDSA on P-256 or P-384; its claims are
//
//	{"cth":"<base64url SHA-256 of the capability>","htm":"POST",
//	 "htu":"https://…","iat":…,"jti":"…"}
//
// A claim or a member of a header that is not listed here is refused: what a
// verifier does not understand could have been a restriction.
package capability
