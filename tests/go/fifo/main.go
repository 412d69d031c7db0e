// SPDX-License-Identifier: GPL-2.0

// FIFOs as containerd and its shims use them: opened by containerd's own
// package, in the background and by a handle, with reads and writes that the
// runtime waits for by epoll.
//
//	fifo read PATH...     copies each to the standard output, one after another
//	fifo write PATH...    copies the standard input to all of them
//	fifo give-up PATH     opens it, and gives up before anybody comes
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/fifo"
)

// The flags of containerd's end of the standard streams of a task.
const (
	reading = syscall.O_RDONLY | syscall.O_CREAT | syscall.O_NONBLOCK
	writing = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_NONBLOCK
)

func read(ctx context.Context, paths []string) error {
	buffers := make([]bytes.Buffer, len(paths))
	errors := make([]error, len(paths))
	var all sync.WaitGroup
	for i, path := range paths {
		file, err := fifo.OpenFifo(ctx, path, reading, 0o700)
		if err != nil {
			return err
		}
		all.Add(1)
		go func() {
			defer all.Done()
			defer file.Close()
			_, errors[i] = io.Copy(&buffers[i], file)
		}()
	}
	all.Wait()
	for i := range paths {
		if errors[i] != nil {
			return errors[i]
		}
		if _, err := buffers[i].WriteTo(os.Stdout); err != nil {
			return err
		}
	}
	return nil
}

func write(ctx context.Context, paths []string) error {
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	for _, path := range paths {
		file, err := fifo.OpenFifo(ctx, path, writing, 0o700)
		if err != nil {
			return err
		}
		if _, err := file.Write(data); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

func giveUp(ctx context.Context, path string) error {
	for _, flags := range []int{reading, writing} {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		file, err := fifo.OpenFifo(short, path, flags, 0o700)
		if err != nil {
			cancel()
			return err
		}
		if n, err := file.Read(make([]byte, 1)); err == nil {
			return fmt.Errorf("%d bytes were read from nobody", n)
		}
		cancel()
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	var err error
	ctx := context.Background()
	switch os.Args[1] {
	case "read":
		err = read(ctx, os.Args[2:])
	case "write":
		err = write(ctx, os.Args[2:])
	case "give-up":
		err = giveUp(ctx, os.Args[2])
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fifo:", err)
		os.Exit(1)
	}
}
