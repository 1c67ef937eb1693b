// Command writ is Writ: the gateway, and what its operators and auditors hold
// in their hands.
//
// Everything that asks about a gateway or tells it something goes through its
// admin socket, and what adds authority there is signed with the operator's
// key. Nothing here opens a ledger that a gateway serves.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/writgate/writ/server/admin/api"
)

// Exit codes. A program may rely on them.
const (
	exitOK          = 0
	exitNo          = 1 // refused, or the answer is no
	exitUsage       = 2 // the command line was not understood
	exitUnavailable = 3 // no gateway answers, or its ledger cannot be used
	exitInvalid     = 4 // what was to be verified does not verify
	exitUnwitnessed = 5 // it verifies, and nobody else has seen the log
	exitFault       = 6 // anything else that went wrong
)

const exitCodes = `Exit codes: 0 done. 1 refused, or the answer is no. 2 the command line was not understood. 3 no gateway answers, or its ledger cannot be used. 4 what was to be verified does not verify. 5 it verifies, and no witness has seen the log. 6 anything else.`

// A cli is the command line. The help texts are the manual: docs/cli.md is
// made from them.
type cli struct {
	settings
	gatewayCmds
	workCmds
	rulesCmds
	proofCmds
	youCmds
	demoCmds
}

// gatewayCmds are about the gateway itself.
type gatewayCmds struct {
	Up     upCmd     `cmd:"" group:"gateway" help:"Start the gateway."`
	Status statusCmd `cmd:"" group:"gateway" help:"Say how the gateway and its log are."`
	Doctor doctorCmd `cmd:"" group:"gateway" help:"Say how everything is: the configuration as understood, the log, and what waits for somebody."`
	Halt   haltCmd   `cmd:"" group:"gateway" help:"Let no call begin until it is lifted."`
	Lift   liftCmd   `cmd:"" group:"gateway" help:"Let calls go on after a halt. Needs your key."`

	Seal sealCmd `cmd:"" group:"gateway" help:"Seal a secret for a static backend."`

	Bench       benchCmd       `cmd:"" group:"gateway" help:"Measure what the gateway costs, beside a plain reverse proxy."`
	BenchTarget benchTargetCmd `cmd:"" hidden:""`
}

// workCmds are about what agents do.
type workCmds struct {
	Run   runCmd `cmd:"" group:"work" help:"Start an agent whose tool calls go through the gateway."`
	Calls struct {
		Ls      callsLsCmd      `cmd:"" help:"List calls, newest first."`
		Tail    callsTailCmd    `cmd:"" help:"Print what happens, as it happens."`
		Show    callsShowCmd    `cmd:"" help:"Show everything that is on record about a call."`
		Explain callsExplainCmd `cmd:"" help:"Say why a call was decided as it was, and what would have permitted it."`
	} `cmd:"" group:"work" help:"Calls of tools."`
	Approvals struct {
		Ls      approvalsLsCmd      `cmd:"" help:"List what waits for an answer."`
		Show    approvalsShowCmd    `cmd:"" help:"Show the action that is waited for, byte for byte."`
		Approve approvalsApproveCmd `cmd:"" help:"Say yes to the action that is shown. Needs your key."`
		Deny    approvalsDenyCmd    `cmd:"" help:"Say no. The agent is told the reason."`
	} `cmd:"" group:"work" help:"Questions to people."`
	Tasks struct {
		Ls   tasksLsCmd   `cmd:"" help:"List tasks in the order they were opened."`
		Show tasksShowCmd `cmd:"" help:"Show a task."`
		Open tasksOpenCmd `cmd:"" help:"Open a task for an agent's key. Needs your key."`
		End  tasksEndCmd  `cmd:"" help:"End a task, its calls, approvals and credentials."`
	} `cmd:"" group:"work" help:"Tasks of agents."`
	Revoke revokeCmd `cmd:"" group:"work" help:"Take authority away, everywhere, and say what that did."`
}

// rulesCmds are about what agents may do.
type rulesCmds struct {
	Agents struct {
		Ls        agentsLsCmd        `cmd:"" help:"List the registered agents."`
		Reinstate agentsReinstateCmd `cmd:"" help:"Make a suspended agent active again. Needs your key."`
	} `cmd:"" group:"rules" help:"Registered agents."`
	Tools struct {
		Ls     toolsLsCmd     `cmd:"" help:"List what the upstreams offer."`
		Show   toolsShowCmd   `cmd:"" help:"Show a tool's definition."`
		Review toolsReviewCmd `cmd:"" help:"Accept tools as they are now defined. Needs your key."`
		Export toolsExportCmd `cmd:"" help:"Print the accepted tools with their definitions, for writ policy check --tools."`
	} `cmd:"" group:"rules" help:"Tools of upstreams."`
	Policy struct {
		Show  policyShowCmd  `cmd:"" help:"Show the policies in force, and how those on disk differ."`
		Check policyCheckCmd `cmd:"" help:"Validate policy files."`
		Test  policyTestCmd  `cmd:"" help:"Run the tests of policy files."`
		Apply policyApplyCmd `cmd:"" help:"Put the policy files on disk in force. Needs your key."`
	} `cmd:"" group:"rules" help:"Policies."`
}

// proofCmds are about what can be proven.
type proofCmds struct {
	Replay   replayCmd `cmd:"" group:"proof" help:"Decide a recorded call again, from its record alone."`
	Receipts struct {
		Prove receiptsProveCmd `cmd:"" help:"Print the receipt of a record, which anybody can verify offline."`
	} `cmd:"" group:"proof" help:"Receipts of records."`
	Witness witnessCmd `cmd:"" group:"proof" help:"Watch a log, and cosign what goes on from what was seen."`
	Verify  verifyCmd  `cmd:"" group:"proof" help:"Verify a receipt offline, against public keys alone."`
}

// youCmds are about whoever sits here.
type youCmds struct {
	Operator struct {
		Init operatorInitCmd `cmd:"" help:"Make your operator's key, sealed under a passphrase."`
		Show operatorShowCmd `cmd:"" help:"Show whose key it is, and its thumbprint."`
	} `cmd:"" group:"you" help:"Your operator's key."`
	Completion completionCmd `cmd:"" group:"you" help:"Print what teaches a shell to complete this command line."`
	Complete   completeCmd   `cmd:"" hidden:"" help:"Print what may come next."`
	Version    versionCmd    `cmd:"" group:"you" help:"Print the version."`
}

// settings are the flags of every command.
type settings struct {
	Output      string `short:"o" enum:"text,json" default:"text" placeholder:"text" help:"How to print: text, or json: one object a line, as openapi.yaml has it."`
	Dir         string `env:"WRIT_DIR" type:"path" default:"${dir}" placeholder:"~/.writ" help:"The gateway's data directory."`
	Socket      string `env:"WRIT_SOCKET" type:"path" placeholder:"DIR/admin.sock" help:"The gateway's admin socket."`
	OperatorKey string `env:"WRIT_OPERATOR_KEY" type:"path" default:"${key}" placeholder:"~/.config/writ/operator.key" help:"Your operator's key."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(dispatch(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// dispatch runs one command, and gives its exit code.
func dispatch(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	var c cli
	done := -1 // what --help and the like exit with
	p, err := parser(&c, out, errs, func(code int) { done = code })
	if err != nil {
		panic(err) // cannot be: the command line is well formed, as a test holds
	}
	k, err := p.Parse(args)
	if done >= 0 {
		return done
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.Dir, "admin.sock")
	}
	s := &session{settings: c.settings, ctx: ctx, client: &api.Client{Socket: c.Socket}, in: in, out: out, errs: errs}
	if err != nil {
		return s.fail(&usageError{err.Error()})
	}
	return s.fail(k.Run(s))
}

func parser(c *cli, out, errs io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("writ"),
		kong.Description("Writ governs the tool calls of AI agents: every call is an identity decision of its own.\n\n"+exitCodes),
		kong.Writers(out, errs), kong.Exit(exit),
		kong.Vars{"dir": below(os.UserHomeDir, ".writ"), "key": below(os.UserConfigDir, filepath.Join("writ", "operator.key"))},
		kong.ExplicitGroups([]kong.Group{
			{Key: "gateway", Title: "The gateway"},
			{Key: "work", Title: "What agents do"},
			{Key: "rules", Title: "What they may do"},
			{Key: "proof", Title: "What is proven"},
			{Key: "you", Title: "You"},
		}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
}

// below is a path below one of the user's own directories, or below this one
// if there is none.
func below(base func() (string, error), name string) string {
	dir, err := base()
	if err != nil {
		return name
	}
	return filepath.Join(dir, name)
}

var version = buildVersion()

func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// A versionCmd prints the version.
type versionCmd struct{}

// Run prints it.
func (versionCmd) Run(s *session) error {
	if s.wantsJSON() {
		return s.json(map[string]string{"version": version})
	}
	s.printf("writ %s\n", version)
	return nil
}
