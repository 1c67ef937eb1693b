package main

import (
	"slices"
	"testing"
)

// TestChildEnv gives an agent its environment: nothing in it that is, or that
// holds, a credential.
func TestChildEnv(t *testing.T) {
	secret := []string{
		"AWS_SECRET_ACCESS_KEY=x", "AWS_PROFILE=x", "GITHUB_TOKEN=x", "GH_TOKEN=x", "GITHUB_PAT=x", "OPENAI_API_KEY=x", "ANTHROPIC_API_KEY=x",
		"PGPASSWORD=x", "PGPASSFILE=x", "MYSQL_PWD=x", "DATABASE_URL=x", "DB_URL=x", "MONGODB_URI=x", "REDISCLOUD_URL=x", "SMTP_URL=x", "SENTRY_DSN=x",
		"OP_SESSION_acme=x", "OP_SERVICE_ACCOUNT_TOKEN=x", "BW_SESSION=x", "VAULT_ADDR=x", "KUBECONFIG=x", "SSH_AUTH_SOCK=x", "KRB5CCNAME=x",
		"GIT_ASKPASS=x", "SSH_ASKPASS=x", "GOOGLE_APPLICATION_CREDENTIALS=x", "AZURE_CLIENT_SECRET=x", "SLACK_WEBHOOK_URL=x", "TWILIO_AUTH_TOKEN=x",
		"SIGNING_KEY=x", "ENCRYPTION_KEY=x", "SESSION_KEY=x", "JWT_SECRET=x", "SECRET=x", "token=x", "MY_COOKIE=x", "LDAP_BINDPW=x", "APIKEY=x",
		"NPM_CONFIG__AUTH=x", "WRIT_DIR=x", "WRIT_PASSPHRASE=x", "SSHPASS=x",
		"HTTPS_PROXY=http://user:pass@proxy.example:3128", "SOMETHING=postgres://u:p@db.example/x", "OTHER=see https://u:p@x.example ok",
	}
	plain := []string{
		"PATH=/usr/bin", "HOME=/home/lena", "LANG=C.UTF-8", "PWD=/srv", "OLDPWD=/", "TERM=xterm", "USER=lena", "SHELL=/bin/sh", "TZ=UTC", "EDITOR=vi",
		"TMPDIR=/tmp", "XDG_RUNTIME_DIR=/run/user/1000", "HTTPS_PROXY=http://proxy.example:3128", "NO_PROXY=localhost", "KEYBOARD=us", "COLORTERM=1",
		"GOPATH=/go", "JAVA_HOME=/jdk", "COMPASS=north", "MONKEY=1", "HOMEPAGE=https://x.example/a@b", "AUTHOR=lena", "TOKENIZERS_PARALLELISM=false",
	}
	left, dropped := childEnv(slices.Concat(secret, plain, []string{"KEPT_TOKEN=x"}), []string{"KEPT_TOKEN"})
	for _, kv := range secret {
		if slices.Contains(left, kv) {
			t.Errorf("the agent gets %s", kv)
		}
	}
	for _, kv := range append(plain, "KEPT_TOKEN=x") {
		if !slices.Contains(left, kv) {
			t.Errorf("the agent does not get %s", kv)
		}
	}
	for _, name := range dropped {
		if slices.ContainsFunc(left, func(kv string) bool { return kv == name }) {
			t.Errorf("%s is named and not kept", name)
		}
	}
	if !slices.Contains(dropped, "GITHUB_TOKEN") || slices.ContainsFunc(dropped, func(s string) bool { return len(s) > 40 }) {
		t.Errorf("left out: %v", dropped)
	}
}
