#!/usr/bin/env bash
# Runs the tests, shows what failed, and lists what could not run on this
# machine and why. TESTENV and TESTFLAGS come from the Makefile.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The tests of cmd/node run clusters of processes, some against the clock of the
# contract: they come last and alone.
echo "go test ${TESTFLAGS:-} ./...   (${TESTENV:-})"
nodes=$(go list ./... | grep '/cmd/node$')
env ${TESTENV:-} go test -timeout 20m ${TESTFLAGS:-} -v $(go list ./... | grep -v '/cmd/node$') >"$log" 2>&1
status=$?
env ${TESTENV:-} go test -timeout 20m ${TESTFLAGS:-} -v $nodes >>"$log" 2>&1 || status=$?

# A line for each package, and all of a failed test's output.
grep -E '^(ok|FAIL|panic:|---? FAIL)' "$log" | grep -v '^FAIL$'
if [ "$status" -ne 0 ]; then
  echo
  echo "Output of what failed:"
  awk '
    /^=== (RUN|CONT|NAME|PAUSE)/ { next }
    /^(ok|\?)  *\t/ { buf = ""; next }
    /^ *--- PASS/ { buf = ""; next }
    { buf = buf $0 "\n" }
    /^FAIL\t|^ *--- FAIL|^panic:|DATA RACE/ { printf "%s", buf; buf = "" }
  ' "$log" | tail -n 400
fi

passed=$(grep -cE '^ *--- PASS' "$log")
failed=$(grep -cE '^ *--- FAIL' "$log")
skipped=$(grep -cE '^ *--- SKIP' "$log")
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi

if [ "$skipped" -gt 0 ]; then
  echo
  echo "Could not run on this machine:"
  awk '
    /^=== RUN/ { name = $3; reason[name] = "" }
    /^=== NAME/ { name = $3 }
    /^ +[a-z_0-9]+\.go:[0-9]+: / { line = $0; sub(/^ +[a-z_0-9]+\.go:[0-9]+: /, "", line); reason[name] = line }
    /^ *--- SKIP/ { print "  " $3 ": " reason[$3] }
  ' "$log"
fi

echo
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
