// Package docker runs programs in containers of a Docker engine on the same
// machine. The images are made from the node's own language trees; nothing is
// pulled. Each container is used once.
//
// A container has no network and no capabilities, a read-only root, a user
// that is not root, and the jail's own table of system calls. What it says
// comes through named pipes in a folder of the node, not through the engine.
package docker
