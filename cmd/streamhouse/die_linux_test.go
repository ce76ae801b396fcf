package main

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the process end with the one that starts it, however that
// ends.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
