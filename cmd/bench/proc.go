package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// use is what processes hold and have consumed.
type use struct {
	rss, pss float64 // MiB
	cpu      time.Duration
}

// tick is the unit of CPU time in /proc/PID/stat, the same on every Linux that
// Go supports.
const tick = 10 * time.Millisecond

// usage sums up processes. One that has ended meanwhile counts nothing.
func usage(pids ...int) (use, error) {
	var sum use
	for _, pid := range pids {
		rss, err := memory(pid, "status", "VmRSS:")
		if err != nil {
			return use{}, err
		}
		pss, err := memory(pid, "smaps_rollup", "Pss:")
		if err != nil {
			return use{}, err
		}
		_, cpu, err := stat(pid)
		if err != nil {
			return use{}, err
		}
		sum.rss += rss
		sum.pss += pss
		sum.cpu += cpu
	}
	return sum, nil
}

// memory reads a line in kB of a file about a process, as MiB.
func memory(pid int, file, line string) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("memory of a process: %w", err)
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 1 && fields[0] == line {
			kb, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				return 0, fmt.Errorf("memory of a process: %w", err)
			}
			return kb / 1024, nil
		}
	}
	return 0, nil // a process that has ended but was not waited for
}

// stat reads the parent and the CPU time of a process.
func stat(pid int) (parent int, cpu time.Duration, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if gone(err) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("CPU of a process: %w", err)
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, 0, errors.New("CPU of a process: malformed")
	}
	var numbers [3]int
	for i, at := range []int{1, 11, 12} { // parent, user time, system time
		if numbers[i], err = strconv.Atoi(fields[at]); err != nil {
			return 0, 0, fmt.Errorf("CPU of a process: %w", err)
		}
	}
	return numbers[0], time.Duration(numbers[1]+numbers[2]) * tick, nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// family is a process and all that it started, directly or not.
func family(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	parents := map[int]int{}
	for _, e := range entries {
		other, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parents[other], _, err = stat(other); err != nil {
			return nil, err
		}
	}
	return below(parents, pid), nil
}

// below lists root and its descendants in ascending order.
func below(parents map[int]int, root int) []int {
	in := map[int]bool{root: true}
	for grown := true; grown; {
		grown = false
		for pid, parent := range parents {
			if in[parent] && !in[pid] {
				in[pid], grown = true, true
			}
		}
	}
	return slices.Sorted(maps.Keys(in))
}

// diskBytes is what the files below dir take on the disk.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			sum += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("size of a folder: %w", err)
	}
	return sum, nil
}

// pause waits unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
