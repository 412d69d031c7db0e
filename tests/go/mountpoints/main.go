// SPDX-License-Identifier: GPL-2.0

// What the mount package of Docker and containerd says of paths: one line of
// JSON for each.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
)

// Answer is what is said of one path.
type Answer struct {
	// What Docker asks before it mounts or unmounts.
	Mounted bool
	// The same without the table of mounts, and whether that was enough.
	Fast, Sure bool
	// The mount that the path is on, by the table: what containerd looks up.
	Lookup string
}

func ask(path string) (answer Answer, err error) {
	if answer.Mounted, err = mountinfo.Mounted(path); err != nil {
		return answer, err
	}
	if answer.Fast, answer.Sure, err = mountinfo.MountedFast(path); err != nil {
		return answer, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return answer, err
	}
	for _, mount := range mounts {
		if len(mount.Mountpoint) >= len(answer.Lookup) {
			answer.Lookup = mount.Mountpoint
		}
	}
	return answer, nil
}

func main() {
	for _, path := range os.Args[1:] {
		answer, err := ask(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		line, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}
