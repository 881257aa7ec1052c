//go:build linux

package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/wire"
)

// newRoot is covered by the jail's root until that takes its place. It is a
// folder that every machine has.
const newRoot = "/tmp"

// Names in the root that the tree cannot bring.
var ours = map[string]bool{"ca.pem": true, "dev": true, "proc": true, "tmp": true, "work": true, "sys": true}

const (
	rootFlags = unix.MS_NOSUID | unix.MS_NODEV
	// rootBytes and rootNodes bound the root itself, which holds only mount
	// points and links.
	rootOptions = "size=256k,nr_inodes=512,mode=0755"
	// extraNodes are the working and temporary folders and what they stand in.
	extraNodes = 8
)

// mounts builds the file system of the jail and moves into it.
func mounts(j *wire.Jail, rep *wire.Report) error {
	if err := step("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return err
	}
	tree := j.Tree
	if tree < 0 {
		// The copy is taken before anything covers the path.
		var err error
		tree, err = unix.OpenTree(unix.AT_FDCWD, j.Start.Root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return step("open "+j.Start.Root, err)
		}
	}
	if err := step("mount root", unix.Mount("jail", newRoot, "tmpfs", rootFlags, rootOptions)); err != nil {
		return err
	}
	if err := unix.Chdir(newRoot); err != nil {
		return step("enter root", err)
	}
	if err := bindTree(tree); err != nil {
		return err
	}
	if err := devices(); err != nil {
		return err
	}
	if err := scratch(j); err != nil {
		return err
	}
	if err := certificates(j); err != nil {
		return err
	}
	if j.Start.Proc {
		if err := os.Mkdir("proc", 0o555); err != nil {
			return step("make /proc", err)
		}
		// Best effort: where the host's own /proc is masked, as in containers,
		// the kernel refuses a fresh one, and the jail has none.
		err := unix.Mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "subset=pid,hidepid=2")
		rep.Proc = err == nil
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return step("pivot root", err)
	}
	if err := step("leave old root", unix.Unmount(".", unix.MNT_DETACH)); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return step("enter new root", err)
	}
	if err := step("make root read-only",
		unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|rootFlags, "")); err != nil {
		return err
	}
	return leaveNamespace()
}

// leaveNamespace makes the jail's root a copy of its mounts that belongs to no
// mount namespace. What /proc/self/mountinfo lists is the mounts of the
// process's namespace below its root, see proc_pid_mountinfo(5): now none, so
// that it does not tell where on the host the tree lies. And no mount call can
// name a mount of the copy, for it is in nobody's namespace.
func leaveNamespace() error {
	// Init keeps this descriptor open: with it the copy would be taken apart.
	root, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return step("copy mounts", err)
	}
	return step("enter copied root", errors.Join(unix.Fchdir(root), unix.Chroot(".")))
}

// bindTree shows each entry of the language tree in the root, read-only.
func bindTree(tree int) error {
	const at = ".tree"
	if err := os.Mkdir(at, 0o755); err != nil {
		return step("make tree folder", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return step("mount tree", err)
	}
	if err := unix.Close(tree); err != nil {
		return step("close tree", err)
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return step("list tree", err)
	}
	for _, e := range entries {
		if ours[e.Name()] {
			continue
		}
		if err := bindEntry(at, e); err != nil {
			return step("bind /"+e.Name(), err)
		}
	}
	if err := step("unmount tree", unix.Unmount(at, unix.MNT_DETACH)); err != nil {
		return err
	}
	return step("remove tree folder", os.Remove(at))
}

func bindEntry(at string, e os.DirEntry) error {
	from, to := filepath.Join(at, e.Name()), e.Name()
	switch {
	case e.Type() == os.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case e.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	case e.Type().IsRegular():
		if err := touch(to); err != nil {
			return err
		}
	default:
		return nil // a tree has no use for anything else
	}
	return bind(from, to, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV)
}

func bind(from, to string, flags uintptr) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// A bind mount takes flags only when mounted again.
	if err := unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("set flags: %w", err)
	}
	return nil
}

func touch(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// devices makes the few harmless devices that programs expect.
func devices() error {
	if err := os.Mkdir("dev", 0o755); err != nil {
		return step("make /dev", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		to := "dev/" + name
		if err := touch(to); err != nil {
			return step("make /"+to, err)
		}
		if err := unix.Mount("/"+to, to, "", unix.MS_BIND, ""); err != nil {
			return step("bind /"+to, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "shm": "/tmp",
	} {
		if err := os.Symlink(target, "dev/"+name); err != nil {
			return step("link /dev/"+name, err)
		}
	}
	return nil
}

// certificates shows the host's list of certificate authorities, which is
// public, to a jail with a network: without it a program cannot know whom it
// talks to. Where the host has none, nor has the jail.
func certificates(j *wire.Jail) error {
	if !j.Start.Network {
		return nil
	}
	if info, err := os.Stat(wire.CertificatesFrom); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	to := strings.TrimPrefix(wire.CertificatesAt, "/")
	if err := touch(to); err != nil {
		return step("make "+wire.CertificatesAt, err)
	}
	return step("bind "+wire.CertificatesAt, bind(wire.CertificatesFrom, to, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC))
}

// scratch makes /work and /tmp, two folders of one limited file system.
func scratch(j *wire.Jail) error {
	const at = "work"
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0755", j.TmpBytes, j.Start.Limits.Files+extraNodes)
	for _, dir := range []string{"work", "tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return step("make /"+dir, err)
		}
	}
	if err := unix.Mount("scratch", at, "tmpfs", rootFlags, options); err != nil {
		return step("mount working folder", err)
	}
	for dir, mode := range map[string]os.FileMode{"work": 0o700, "tmp": os.ModeSticky | 0o777} {
		inner := filepath.Join(at, dir)
		if err := errors.Join(os.Mkdir(inner, 0o700), os.Chmod(inner, mode), os.Lchown(inner, j.WorkerID, j.WorkerID)); err != nil {
			return step("make working folder", err)
		}
	}
	if err := unix.Mount(filepath.Join(at, "tmp"), "tmp", "", unix.MS_BIND, ""); err != nil {
		return step("bind /tmp", err)
	}
	// The inner folder covers the file system that it is part of.
	return step("bind /work", unix.Mount(filepath.Join(at, "work"), at, "", unix.MS_BIND, ""))
}
