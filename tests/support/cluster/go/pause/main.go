// pause is the first process of a pod sandbox, and of the embedded machine: it reaps children and ends on SIGTERM or SIGINT.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range c {
		if s == syscall.SIGCHLD {
			for {
				p, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
				if p <= 0 || err != nil {
					break
				}
			}
			continue
		}
		os.Exit(0)
	}
}
