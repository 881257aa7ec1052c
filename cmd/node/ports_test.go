package main

import (
	"slices"
	"testing"
)

// A port that a node will serve HTTP at is not given to another for the mesh.
func TestFreePortsAreNotPromisedOnes(t *testing.T) {
	var promised []int
	for port := lowestPort; port <= highestPort; port++ {
		if port%8 != 0 {
			promised = append(promised, port)
		}
	}
	for range 20 {
		ports, err := freePorts(t.Context(), 2, promised...)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			if slices.Contains(promised, port) {
				t.Errorf("port %d was promised", port)
			}
		}
	}
}
