# AgentiCraft node. `make help` lists the targets.
SHELL       := /bin/bash
GO          ?= go
BIN         := bin/agenticraft
HELPER      := sandbox/jail/bin/jail
LDFLAGS     := -s -w
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME    ?= 10s
# The race detector needs cgo and a C compiler; it is used where they are.
RACE        := $(shell command -v gcc >/dev/null 2>&1 && echo 1)
TESTENV     := $(if $(RACE),CGO_ENABLED=1,CGO_ENABLED=0)
TESTFLAGS   := $(if $(RACE),-race)

.DEFAULT_GOAL := build
.PHONY: help build demo test test-long check bench escape fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build bin/agenticraft, with the jail helper inside
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(HELPER).new ./cmd/jail && mv $(HELPER).new $(HELPER)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/node

demo: build ## the main job, on three real nodes
	@$(GO) run ./cmd/demo

test: build ## every test that can run on this machine, and what could not
	@TESTENV='$(TESTENV)' TESTFLAGS='$(TESTFLAGS)' deploy/test.sh

test-long: build ## the slow tests too, as root; .ci/run long also installs what they need
	@TESTENV='$(TESTENV)' TESTFLAGS='$(TESTFLAGS) -tags=long -timeout=60m' deploy/test.sh

check: ## format, vet, lint and floors
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'gofmt has a wish'; exit 1; }
	$(GO) vet ./...
	$(GO) run $(GOLANGCI) run ./...
	$(GO) test -count=1 -run 'Test' .

bench: build ## figures that a user waits for, beside their peers
	@$(GO) run ./cmd/bench

escape: build ## hold every sandbox to the cases of abuse, and write docs/isolation.md
	@set -e; new=$$(mktemp); trap 'rm -f "$$new"' EXIT; cp deploy/isolation.md.head "$$new"; \
	  AGENTICRAFT_ISOLATION_REPORT="$$new" $(GO) test -tags=long -timeout 30m -count=1 -p 1 -run '^(TestProcess|TestConformance|TestDocker)(AsNobody)?$$' ./sandbox/sandboxtest ./sandbox/restricted ./sandbox/wasm ./sandbox/docker; \
	  cat "$$new" > docs/isolation.md; grep -E '^(## |Tier )' docs/isolation.md

fuzz: ## each fuzz test for FUZZTIME
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz || true); do \
	  echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; done; done

clean: ## remove what was built
	rm -rf bin $(HELPER)
