package admin

import "syscall"

// peerUID is the user who connected, or made the pair (unix(7), SO_PEERCRED).
func peerUID(fd int) (uint32, error) {
	c, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return c.Uid, nil
}
