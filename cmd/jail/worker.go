package main

// workers are the programs that this binary runs inside a jail, by the name
// given as its first argument. Before a worker's function is called, the
// process has closed itself off from every system call that a Go program
// computing in memory and talking over its control descriptor does not need.
var workers = map[string]func(){
	"probe":    func() {},
	"starlark": starlarkWorker,
}
