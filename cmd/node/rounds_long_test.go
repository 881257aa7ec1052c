//go:build long

package main

// rounds is how many nodes a test of kills kills.
const rounds = 30

// patient tests also wait for what only a time-out ends.
const patient = true
