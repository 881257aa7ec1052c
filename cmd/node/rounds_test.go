//go:build !long

package main

// rounds is how many nodes a test of kills kills: each once.
const rounds = 3

// patient tests also wait for what only a time-out ends.
const patient = false

// slowness is how many times what the contract gives it a busy machine may take.
const slowness = 12
