package main

import (
	"os"
	"os/signal"
	"syscall"
)

// Holds a pod's namespaces until it is told to go.
func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
