package process_test

// childMode names what this test binary does when it runs itself.
const childMode = "AGENTICRAFT_PROCESS_TEST"

func childMain() int { return 0 }
