//go:build linux

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Detect finds where this process may make groups, by making one for each
// controller. node distinguishes nodes that share a machine. A machine
// without control groups is not an error: its Host has no mechanisms.
func Detect(node string) *Host {
	h := &Host{controllers: map[string]controller{}, features: map[string]string{}}
	// The dot cannot be part of a node's id, so no prefix is another's.
	h.prefix = "agenticraft." + node + "."
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		h.version = "none"
		h.features["cgroup"] = err.Error()
		return h
	}
	mounts := parseMounts(f)
	_ = f.Close() // only read
	h.choose(mounts)
	return h
}

// mount is one mounted hierarchy.
type mount struct {
	dir         string
	version     int
	controllers []string // v1: from the mount's options
}

// parseMounts reads /proc/self/mountinfo, see proc_pid_mountinfo(5).
func parseMounts(r io.Reader) []mount {
	var out []mount
	sc := bufio.NewScanner(io.LimitReader(r, 1<<20))
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		if !ok {
			continue
		}
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 3 {
			continue
		}
		switch r[0] {
		case "cgroup2":
			out = append(out, mount{dir: unescape(l[4]), version: 2})
		case "cgroup":
			out = append(out, mount{dir: unescape(l[4]), version: 1, controllers: strings.Split(r[2], ",")})
		}
	}
	return out
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (h *Host) choose(mounts []mount) {
	versions := map[int]bool{}
	for _, ctl := range []string{Memory, CPU, Pids} {
		var faults []error
		for _, m := range mounts {
			if m.version == 1 && !slices.Contains(m.controllers, ctl) {
				continue
			}
			err := usable(m, ctl, h.prefix)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			if _, ok := h.controllers[ctl]; !ok {
				h.controllers[ctl] = controller{version: m.version, dir: m.dir}
				versions[m.version] = true
			}
		}
		switch {
		case h.Mechanism(ctl) != "":
			h.features["cgroup_"+ctl] = "ok"
		case len(faults) > 0:
			h.features["cgroup_"+ctl] = oneLine(errors.Join(faults...))
		default:
			h.features["cgroup_"+ctl] = "not mounted"
		}
	}
	for _, m := range mounts {
		if m.version == 1 && slices.Contains(m.controllers, "cpuacct") && usable(m, "cpuacct", h.prefix) == nil {
			h.cpuacct = m.dir
		}
	}
	switch {
	case versions[1] && versions[2]:
		h.version = "hybrid"
	case versions[1]:
		h.version = "v1"
	case versions[2]:
		h.version = "v2"
	default:
		h.version = "none"
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// usable makes and removes a group in the hierarchy to see whether the
// controller's limits are there.
func usable(m mount, ctl, prefix string) error {
	if m.version == 2 {
		if err := enable(m.dir, ctl); err != nil {
			return err
		}
	}
	dir := filepath.Join(m.dir, fmt.Sprintf("%sprobe-%d", prefix, os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	err := checkFile(dir, limitFile(m.version, ctl))
	return errors.Join(err, removeDir(dir, time.Second))
}

func limitFile(version int, ctl string) string {
	switch {
	case ctl == "cpuacct":
		return "cpuacct.usage"
	case ctl == Pids:
		return "pids.max"
	case ctl == Memory && version == 2:
		return "memory.max"
	case ctl == Memory:
		return "memory.limit_in_bytes"
	case version == 2:
		return "cpu.max"
	}
	return "cpu.cfs_quota_us"
}

func checkFile(dir, file string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// enable hands a version 2 controller down to groups made in dir.
func enable(dir, ctl string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(b)), ctl) {
		return fmt.Errorf("cgroup2 at %s does not offer %s", dir, ctl)
	}
	b, err = os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(b)), ctl) {
		return nil
	}
	return write(filepath.Join(dir, "cgroup.subtree_control"), "+"+ctl)
}
