package wire

// In a container the node is reached by named pipes, in a folder that it sees as
// Pipes, beside the helper, which is process 1.
const (
	Pipes  = "/run/agenticraft"
	Helper = "jail" // name of the helper in that folder

	PipeStdin  = "stdin"
	PipeStdout = "stdout"
	PipeStderr = "stderr"
	PipeOutlet = "outlet" // to the node
	PipeInlet  = "inlet"  // from the node
	PipeLife   = "life"   // nothing comes through it; it ends when the node does

	// OutletFD and InletFD are the interpreter's descriptors of the last two.
	OutletFD = 3
	InletFD  = 4

	// OwnEnv is a variable of process 1 that its child does not get.
	OwnEnv = "GOMAXPROCS"
)
