//go:build long

package main

// rounds is how many nodes a test of kills kills.
const rounds = 30

// patient tests also wait for what only a time-out ends.
const patient = true

// slowness is how many times what the contract gives it a machine may take: a quiet
// one keeps to the contract.
const slowness = 1
