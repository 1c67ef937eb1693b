package upstream

import (
	"syscall"
	"unsafe"
)

// limit keeps a process from writing its memory, and the credential in it, to
// a core file, and bounds its open files. The process may have begun by then;
// what it starts inherits the limits.
func limit(pid int) {
	const noFile, core = 7, 4 // RLIMIT_NOFILE, RLIMIT_CORE
	for resource, most := range map[uintptr]uint64{core: 0, noFile: 4096} {
		r := syscall.Rlimit{Cur: most, Max: most}
		syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), resource, uintptr(unsafe.Pointer(&r)), 0, 0, 0)
	}
}
