package upstream_test

import (
	"context"
	"fmt"
	"os"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

func serveStdio(kind string) {
	switch kind {
	case "sdk":
		reference().Run(context.Background(), &sdk.StdioTransport{})
	default:
		fmt.Fprintln(os.Stderr, "no such server:", kind)
		os.Exit(2)
	}
}
