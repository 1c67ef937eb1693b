// Package interop holds no code: its tests put Writ between software that
// others wrote. The official conformance suite of MCP, real tool servers and
// real agents meet through a real gateway, which is started as anybody would
// start it.
//
// The tests need Node 22 and the packages of testdata/package.json, and skip
// without them, as do those of broker/oauth and server/token that hold our
// OAuth against others'. .ci/run installs both:
//
//	cp interop/testdata/package.json DIR && npm install --ignore-scripts --prefix DIR
//	WRIT_INTEROP=DIR go test ./interop ./broker/oauth ./server/token
package interop
