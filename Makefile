# `make` alone lists the targets. Every target works from a fresh checkout.

GO ?= go
SHELL := /bin/bash
WEIR := bin/weir

# What the committed BPF objects are generated with; bpf/clang.sh checks it.
export BPF_CLANG ?= clang-14
export BPF_STRIP ?= llvm-strip-14

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

FUZZTIME ?= 60s
SOAK ?= 600
ROUNDS ?= 7

# The race detector needs a C compiler; a machine with Go and nothing else has none.
RACE := $(if $(shell command -v $${CC:-gcc}),-race)

.DEFAULT_GOAL := help
.PHONY: help build generate fresh test interop cilium demo vm bench soak fuzz lint cross clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/weir, one static binary; needs Go and nothing else
	CGO_ENABLED=0 $(GO) build -trimpath -o $(WEIR) ./agent/cmd/weir

test: build ## vet and every test that needs only Go and root, with the race detector where there is a C compiler
	$(GO) vet ./...
	$(GO) test $(RACE) -timeout 10m ./...
	$(if $(RACE),$(GO) test -p 1 -run TestScale ./agent ./agent/explain)
	@e2e/kernel-note $(WEIR)

demo: build ## what weir does, on one screen; needs root
	@$(GO) run ./e2e/demo -weir $(WEIR)

interop: build ## curl, Python, Go, Node, Java, wrk and Docker with weir, unchanged, and Cilium's policy engine beside ours; installs what is missing
	e2e/need curl:curl wrk:wrk python3:python3 node:nodejs java:default-jdk-headless \
		dockerd:docker.io docker:docker.io iptables-save:iptables docker-compose:docker-compose
	e2e/need -python requests:python3-requests
	$(GO) test -count=1 -tags interop -timeout 15m -v ./e2e/interop
	$(MAKE) --no-print-directory cilium
	@e2e/kernel-note $(WEIR)

# A module of its own: -mod=mod because what it requires follows from the root's go.mod.
cilium: ## our policy engine beside Cilium's, on random policies for 60 s (CILIUMFLAGS="-seed 2 -for 10m"); its first build takes minutes
	cd e2e/cilium && $(GO) test -mod=mod -count=1 -timeout 60m -v . $(CILIUMFLAGS)

vm: ## the demo and the datapath's tests on the oldest kernel, Debian's 6.1, in QEMU; installs it
	e2e/vm

bench: build ## weir beside HAProxy and a direct connection (ROUNDS=7); installs nginx, wrk and haproxy if missing
	e2e/need nginx:nginx-light wrk:wrk haproxy:haproxy
	$(GO) run ./e2e/bench -weir $(WEIR) -rounds $(ROUNDS) $(BENCHFLAGS)

soak: build ## torture: requests at random while weir is killed and restarted, for SOAK=600 seconds
	$(GO) run $(RACE) ./e2e/soak -weir $(WEIR) -seconds $(SOAK)

fuzz: ## every fuzz target in the tree for FUZZTIME=60s
	e2e/fuzz $(FUZZTIME)

lint: ## gofmt, vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w needed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags interop ./e2e/...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags interop ./e2e/...

cross: ## the policy commands and the gateway build for macOS and Windows too
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./agent/cmd/weir
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) build -o /dev/null ./agent/cmd/weir
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./agent/cmd/weir

generate: ## the committed BPF objects and their Go, anew; installs the pinned clang if missing
	bpf/clang.sh
	$(GO) generate ./bpf/...

fresh: ## proof that the committed generated files are what `make generate` makes
	bpf/clang.sh
	e2e/fresh

clean: ## what the other targets left in the tree
	rm -rf bin .tools
