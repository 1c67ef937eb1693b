// Package identity says who is calling: the first step of every call.
//
// A caller is whoever holds a key, and there are two proofs of that. One is
// an X.509-SVID over mutual TLS, where the channel is the proof. The other is
// a short-lived access token of Writ's own token endpoint, bound to a key
// (cnf.jkt), with a DPoP proof (RFC 9449) made with that key for this one
// request.
//
// There is no third way. Bearer secrets, identity headers and default
// identities do not exist here: [Evidence] has no field for them. Nothing in
// this package dials: trust bundles and keys are given to it, and a key or an
// address inside a token is never followed.
//
// # Proofs are used once
//
// A DPoP proof is remembered in memory for as long as its time could still be
// accepted, and its id is handed to the caller of [Verifier.Verify], who
// inserts it in the transaction that records the decision. Memory makes a
// replay cheap to refuse; the transaction makes it impossible, across
// gateways and restarts. What memory has forgotten, or cannot know since the
// clock was set back, it refuses. The id is 16 hexadecimal digits of time and 64 of
// SHA-256, so that rows sort by time and old ones can be swept.
//
// # The token
//
// An access token is a JWT with these members and no others in its header:
//
//	{"alg":"EdDSA","typ":"at+jwt","kid":"<thumbprint of the signing key>"}
//
// and these claims (RFC 9068, RFC 7800), times in whole seconds:
//
//	{"iss":…,"sub":"spiffe://…","client_id":"spiffe://…","aud":"<one resource>",
//	 "iat":…,"exp":…,"jti":…,"cnf":{"jkt":…},"writ":{"task":…,"user":…}}
//
// It lives ten minutes at most. The task in it is what its key was bound to
// when it was issued; it names no permission.
package identity
