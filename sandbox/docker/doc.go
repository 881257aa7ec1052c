// Package docker runs programs in containers of a Docker engine on the same
// machine: Python, JavaScript and sh. The images are made from the node's own
// language trees, or are those that the operator names, which are pulled if need
// be. Each container is used once.
//
// A container has no network and no capabilities, a read-only root, a user
// that is not root, and the jail's own table of system calls. What it says
// comes through named pipes in a folder of the node, not through the engine.
// Process 1 is the jail helper, which opens them for the interpreter.
package docker
