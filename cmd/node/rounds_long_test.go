//go:build long

package main

// rounds is how many nodes a test of kills kills.
const rounds = 30
