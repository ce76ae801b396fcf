# The commands of daily work. `make` alone starts an agent; `make test` runs all
# tests on a machine that has nothing but Go.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

MODULES    := . compat-tests
TESTFLAGS  := -race -tags invariants,mutants -timeout 10m
# A number of runs: at a limit of time, go test fails now and then with nothing
# but "context deadline exceeded".
FUZZTIME   := 20000x
CHAOS_DURATION := 10m
BENCHFLAGS :=
SIM_SEEDS  := 1000
CACHE      := .cache/bin
LINT       := go tool -modfile=$(CURDIR)/tools/lint/go.mod
each       := for module in $(MODULES); do (cd $$module &&
go_files   := find . -name '.?*' -prune -o -name '*.go' -print0

.PHONY: run build test prepare setup check tools bench compat-all chaos fuzz model sim lint docs clean

run: ## start an agent: SQLite and a folder, Kafka on 127.0.0.1:9092
	go run ./cmd/streamhouse agent

build: ## build bin/streamhouse
	CGO_ENABLED=0 go build -trimpath -o bin/streamhouse ./cmd/streamhouse

test: ## install what is missing, check, fuzz a little, run all tests, print totals
	$(MAKE) --no-print-directory -j prepare
	$(MAKE) --no-print-directory fuzz
	$(CACHE)/testenv $(CACHE)/testtotals $(MODULES) -- $(TESTFLAGS)

# What the tests stand on. The parts do not depend on each other: apt waits for
# the network while the S3 server, which takes longest, compiles.
prepare: $(CACHE)/s3server tools setup check

setup:
	tools/setup.sh

check:
	@unformatted=$$($(go_files) | xargs -0 gofmt -l); \
		if [[ -n $$unformatted ]]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	$(each) go vet -tags invariants ./...) || exit 1; done

$(CACHE)/s3server: $(wildcard tools/s3server/*.go) tools/s3server/go.mod tools/s3server/go.sum
	cd tools/s3server && go build -o $(CURDIR)/$@ .

tools:
	go build -o $(CACHE)/ ./tools/testenv ./tools/testtotals

bench: $(CACHE)/s3server tools setup ## Go benchmarks with real servers, then end to end beside Apache Kafka
	$(CACHE)/testenv go test -run '^$$' -bench . -benchmem ./...
	cd compat-tests && go test -run '^$$' -bench . -benchtime 1x -timeout 40m ./bench $(BENCHFLAGS)

compat-all: $(CACHE)/s3server tools setup ## all clients and tools, also what takes minutes; writes docs/COMPATIBILITY.md
	status=0; (cd compat-tests && COMPAT_ALL=1 COMPAT_REPORT=report/last.json \
		../$(CACHE)/testenv go test -count 1 -timeout 60m .) || status=$$?; \
		$(MAKE) --no-print-directory docs; exit $$status

chaos: $(CACHE)/s3server setup ## four agents under faults of all kinds for CHAOS_DURATION; CHAOS_SEED chooses them; evidence of failures is in .cache/chaos
	go build -tags invariants -o $(CACHE)/chaos-streamhouse ./cmd/streamhouse
	mkdir -p .cache/chaos
	cd compat-tests && CHAOS_DURATION=$(CHAOS_DURATION) STREAMHOUSE_BIN=$(CURDIR)/$(CACHE)/chaos-streamhouse \
		go test -count 1 -timeout 0 -v -run '^TestFaultMix$$' -artifacts -outputdir $(CURDIR)/.cache/chaos .

fuzz: ## each fuzz target for FUZZTIME
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' $(filter-out $(MODULES:%=%/),$(wildcard */)) | \
		sed -E 's|/[^/]*:func | |' | while read -r folder target; do \
			echo "fuzz $$folder $$target"; \
			go test -tags invariants -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$folder </dev/null; \
		done

model: ## all that leases and commits can come to, within large bounds: minutes, 2 GB
	go test -count 1 -timeout 60m -v -run '^TestSearch$$' ./lease/model -large

sim: ## simulated clusters full of faults: SIM_SEEDS of them in SIM_WORKERS processes; SIM_SEED=n repeats one
	go run ./internal/sim/overlay .cache/sim
	go test -overlay .cache/sim/overlay.json -tags invariants -c -o $(CACHE)/sim.test ./internal/sim
	SIM_EXACT=1 SIM_SEEDS=$(SIM_SEEDS) $(CACHE)/sim.test -test.v -test.timeout 0 $(if $(SIM_SEED),-test.run '^TestReplay$$')

lint: check ## staticcheck and gofumpt too
	$(each) $(LINT) staticcheck -tags invariants ./...) || exit 1; done
	@unformatted=$$($(go_files) | xargs -0 $(LINT) gofumpt -l); \
		if [[ -n $$unformatted ]]; then echo "not formatted (gofumpt -w):"; echo "$$unformatted"; exit 1; fi

docs: ## generate the configuration reference, and the compatibility page of the last compat-all
	go run ./cmd/streamhouse config --reference >docs/CONFIGURATION.md.new
	mv docs/CONFIGURATION.md.new docs/CONFIGURATION.md
	cd compat-tests && go run ./report/document >../docs/COMPATIBILITY.md.new
	mv docs/COMPATIBILITY.md.new docs/COMPATIBILITY.md

clean: ## remove all that was built
	rm -rf bin .cache
