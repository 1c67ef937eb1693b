//go:build linux

package admin_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/writgate/writ/server/admin/api"
)

// TestAnotherUserIsRefused lets another user reach the socket, whom nobody
// has named, and then names them.
func TestAnotherUserIsRefused(t *testing.T) {
	if socket := os.Getenv("WRIT_TEST_SOCKET"); socket != "" { // as the other user
		var st api.Status
		if err := (&api.Client{Socket: socket}).Get(t.Context(), "/status", &st); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	const nobody = 65534
	me, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "test")
	if err := os.WriteFile(exe, me, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, named := range []bool{false, true} {
		d := open(t, func(d *desk) {
			if named {
				d.server.UIDs = []uint32{nobody}
			}
		})
		d.must(os.Chmod(d.socket, 0o666))
		for _, dir := range []string{filepath.Dir(d.socket), filepath.Dir(filepath.Dir(d.socket)), filepath.Dir(filepath.Dir(exe))} {
			d.must(os.Chmod(dir, 0o755))
		}
		cmd := exec.Command(exe, "-test.run=^TestAnotherUserIsRefused$")
		cmd.Dir = "/"
		cmd.Env = []string{"WRIT_TEST_SOCKET=" + d.socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if ok := err == nil; ok != named {
			t.Errorf("named %v: %v\n%s", named, err, out)
		}
		if !named && !strings.Contains(string(out), "user 65534 is none of this gateway's") {
			t.Errorf("refused, and not for who it is: %s", out)
		}
	}
}
