// SPDX-License-Identifier: GPL-2.0

// ttrpc over a unix socket, as containerd talks to its shims: many calls at a
// time over one connection, some of which answer late.
//
//	ttrpc serve PATH         serves until a client asks it to end
//	ttrpc ask PATH COUNT     makes so many calls, 8 at a time, then ends the server
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "qtfs.tests.Ping"

type method = func(context.Context, func(interface{}) error) (interface{}, error)

// answers makes a method of a function from text to text.
func answers(f func(string) string) method {
	return func(_ context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		var asked wrapperspb.StringValue
		if err := unmarshal(&asked); err != nil {
			return nil, err
		}
		return wrapperspb.String(f(asked.Value)), nil
	}
}

func serve(path string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	over := make(chan struct{})
	server.RegisterService(service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Upper": answers(strings.ToUpper),
		"Late": answers(func(text string) string {
			time.Sleep(100 * time.Millisecond)
			return text
		}),
		"End": answers(func(text string) string {
			close(over)
			return text
		}),
	}})
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), listener) }()
	select {
	case err := <-served:
		return err
	case <-over:
	}
	// Answers the call that is being served, first.
	limit, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return server.Shutdown(limit)
}

// dial connects, as soon as somebody listens.
func dial(path string) (net.Conn, error) {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		absent := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
		if !absent || time.Since(begun) > time.Minute {
			return conn, err
		}
	}
}

func ask(path string, count int) error {
	conn, err := dial(path)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	call := func(name, text, want string) error {
		limit, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var got wrapperspb.StringValue
		if err := client.Call(limit, service, name, wrapperspb.String(text), &got); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if got.Value != want {
			return fmt.Errorf("%s: other %d bytes for %d", name, len(got.Value), len(want))
		}
		return nil
	}
	const atATime = 8
	failed := make([]error, atATime)
	var all sync.WaitGroup
	for caller := range failed {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := caller; number < count && failed[caller] == nil; number += atATime {
				text := strings.Repeat(fmt.Sprintf("call %d,", number), 1+number%7*500)
				if number%10 == 0 {
					failed[caller] = call("Late", text, text)
				} else {
					failed[caller] = call("Upper", text, strings.ToUpper(text))
				}
			}
		}()
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if client.Call(limit, service, "No", wrapperspb.String(""), &wrapperspb.StringValue{}) == nil {
		return fmt.Errorf("a method that does not exist answers")
	}
	// The server may close the connection before it answers the call that makes it shut down.
	if err := call("End", "", ""); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		return err
	}
	fmt.Println(count, "calls")
	return nil
}

func run() error {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		return serve(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "ask":
		count, err := strconv.Atoi(os.Args[3])
		if err != nil {
			return err
		}
		return ask(os.Args[2], count)
	}
	return fmt.Errorf("usage: ttrpc serve PATH | ask PATH COUNT")
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ttrpc:", err)
		os.Exit(1)
	}
}
