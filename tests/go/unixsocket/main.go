// SPDX-License-Identifier: GPL-2.0

// Unix sockets as the container stack uses them: Go's net package, which
// passes addresses of their exact length and waits by epoll.
//
//	unixsocket serve PATH COUNT   echoes so many connections, all at a time
//	unixsocket ask PATH SIZE      sends so many bytes and compares what comes back
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func serve(path string, count int) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	var all sync.WaitGroup
	errors := make([]error, count)
	for i := range errors {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		all.Add(1)
		go func() {
			defer all.Done()
			defer conn.Close()
			_, errors[i] = io.Copy(conn, conn)
		}()
	}
	all.Wait()
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	fmt.Println(count, "connections")
	return nil
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

func ask(path string, size int) error {
	conn, err := dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	data := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		if err == nil {
			err = conn.(*net.UnixConn).CloseWrite()
		}
		sent <- err
	}()
	back, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%d bytes came back for %d, or others", len(back), len(data))
	}
	fmt.Println("same")
	return nil
}

func run() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: unixsocket serve|ask PATH NUMBER")
	}
	number, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	switch os.Args[1] {
	case "serve":
		return serve(os.Args[2], number)
	case "ask":
		return ask(os.Args[2], number)
	}
	return fmt.Errorf("%s: serve or ask", os.Args[1])
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "unixsocket:", err)
		os.Exit(1)
	}
}
