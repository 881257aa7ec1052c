package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// DefaultLimits are the limits of a run that asks for none.
func DefaultLimits() Limits {
	return Limits{
		Memory:     256 << 20,
		CPUPercent: 100,
		Wall:       30 * time.Second,
		Output:     1 << 20,
		FileSize:   16 << 20,
		Files:      1024,
		Processes:  32,
		Result:     1 << 20,
	}
}

// MaxLimits are the limits that no run exceeds unless the manager is
// configured otherwise.
func MaxLimits() Limits {
	return Limits{
		Memory:     4 << 30,
		CPUPercent: 100 * runtime.NumCPU(),
		Wall:       10 * time.Minute,
		Output:     16 << 20,
		FileSize:   256 << 20,
		Files:      65536,
		Processes:  512,
		Result:     4 << 20,
	}
}

// MinMemory, in bytes, is the least that starts an interpreter.
const MinMemory = 16 << 20

// Or replaces zero fields by those of d.
func (l Limits) Or(d Limits) Limits {
	return Limits{
		Memory:     cmp.Or(l.Memory, d.Memory),
		CPUPercent: cmp.Or(l.CPUPercent, d.CPUPercent),
		Wall:       cmp.Or(l.Wall, d.Wall),
		Output:     cmp.Or(l.Output, d.Output),
		FileSize:   cmp.Or(l.FileSize, d.FileSize),
		Files:      cmp.Or(l.Files, d.Files),
		Processes:  cmp.Or(l.Processes, d.Processes),
		Result:     cmp.Or(l.Result, d.Result),
	}
}

// clamp lowers every field that exceeds m's.
func (l Limits) clamp(m Limits) Limits {
	return Limits{
		Memory:     min(l.Memory, m.Memory),
		CPUPercent: min(l.CPUPercent, m.CPUPercent),
		Wall:       min(l.Wall, m.Wall),
		Output:     min(l.Output, m.Output),
		FileSize:   min(l.FileSize, m.FileSize),
		Files:      min(l.Files, m.Files),
		Processes:  min(l.Processes, m.Processes),
		Result:     min(l.Result, m.Result),
	}
}

// check reports negative fields, and a memory limit that starts nothing.
func (l Limits) check(which string) error {
	var faults []error
	negative := func(name string, v int64) {
		if v < 0 {
			faults = append(faults, fmt.Errorf("%s limit %s is negative", which, name))
		}
	}
	negative("memory", l.Memory)
	negative("cpu_percent", int64(l.CPUPercent))
	negative("wall", int64(l.Wall))
	negative("output", l.Output)
	negative("file_size", l.FileSize)
	negative("files", int64(l.Files))
	negative("processes", int64(l.Processes))
	negative("result", l.Result)
	if l.Memory > 0 && l.Memory < MinMemory {
		faults = append(faults, fmt.Errorf("%s limit memory of %d bytes is below the least of %d", which, l.Memory, MinMemory))
	}
	return errors.Join(faults...)
}
