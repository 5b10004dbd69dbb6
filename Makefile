# Tidegate: build it, try it, see it, measure it. Everything runs as root on Debian 12.
#
#   make demo            two tenants, policies by name, an app behind TLS: shows what is reached and by which rule
#   make demo KEEP=1     … and leaves the node-local world running; make demo-down removes it
#   make test            unit tests, worlds of network namespaces, and the named list under the second kernel
#   make test-long       the same with larger counts, and every world under the second kernel too
#   make bench           packets and bytes a second, against plain routing, nftables and iptables
#   make lint            formatting, clippy, dependencies

.DEFAULT_GOAL := build
.PHONY: build release test test-long demo demo-down bench lint fmt bootstrap clean

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto
DEBUG := target/debug
RELEASE := target/release

build:
	./bootstrap build
	$(CARGO) build --workspace

release:
	./bootstrap build
	$(CARGO) build --workspace --release

bootstrap:
	./bootstrap

test: bootstrap
	$(CARGO) build --workspace
	$(DEBUG)/run-tests

test-long: bootstrap
	$(CARGO) build --workspace
	$(DEBUG)/run-tests --long

demo:
	./bootstrap build world vlan
	$(CARGO) build --workspace
	$(DEBUG)/demo up $(if $(KEEP),--keep)

demo-down:
	$(DEBUG)/demo down

bench:
	./bootstrap build world bench
	$(CARGO) build --workspace --release
	$(RELEASE)/tidegate-bench $(if $(ONLY),--only $(ONLY)) $(BENCH)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check bans licenses sources; \
	else echo "lint: SKIPPED: cargo-deny is not installed; dependencies were not checked against deny.toml"; fi

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
