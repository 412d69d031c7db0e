// SPDX-License-Identifier: GPL-2.0

// fsnotify, as containerd and kubelet watch directories of configuration.
//
//	watch DIRECTORY LAST   prints an event a line, until one of the name LAST comes
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

func watch(directory, last string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := watcher.Add(directory); err != nil {
		return err
	}
	fmt.Println("watches")
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return fmt.Errorf("no more events")
			}
			name := filepath.Base(event.Name)
			fmt.Println(event.Op, name)
			if name == last {
				return nil
			}
		case err := <-watcher.Errors:
			return err
		}
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: watch DIRECTORY LAST")
		os.Exit(2)
	}
	if err := watch(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(1)
	}
}
