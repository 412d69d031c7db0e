# SPDX-License-Identifier: GPL-2.0
#
# qtfs: two kernel modules and the programs that go with them. See `make help`.

# Everything that is made goes there; the source directories stay clean.
BUILD ?= build
override BUILD := $(abspath $(BUILD))

# A prepared kernel tree of the caller's own, and the kernel version otherwise.
KDIR ?=
KVER ?=
# As for the kernel itself: V=1 shows commands, W=1 adds warnings.
V ?= 0
W ?=
CARGOFLAGS ?=

export KVER
MAKEFLAGS += --no-print-directory

ifneq ($(KDIR),)
# With the tree's own compiler on this machine, the build root is not needed.
# Which one it is in the end is compared by `scripts/kernel check-tree`.
kdir-rustc := $(shell sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"/\1/p' $(KDIR)/.config 2>/dev/null)
ifneq ($(kdir-rustc),)
ifeq ($(shell rustc --version 2>/dev/null),$(kdir-rustc))
export QTFS_BUILD_ROOT := host
endif
endif
find-tree = tree=$$(scripts/kernel check-tree '$(abspath $(KDIR))')
RUN = $(ENTER) --bind '$(abspath $(KDIR))'
else
find-tree = tree=$$(scripts/kernel tree)
RUN = $(ENTER)
endif
ENTER := scripts/build-root run --bind '$(BUILD)'

JOBS := $(shell nproc)

# Runs the kernel's build system: $(call kbuild,output directory,arguments).
# A module's BTF would need the kernel's vmlinux, which is not packaged. Two
# runs in one directory would break each other, so the later one waits.
kbuild = $(find-tree) && vars=$$(scripts/kernel kbuild "$$tree") && mkdir -p '$(1)' && \
	flock '$(1).lock' $(RUN) -- make --no-print-directory -j$(JOBS) -C "$$tree" M='$(CURDIR)' MO='$(1)' \
		$$vars CONFIG_DEBUG_INFO_BTF_MODULES= V=$(V) $(if $(W),W=$(W)) $(2)

CARGO = mkdir -p '$(BUILD)' && $(RUN) --chdir '$(CURDIR)/userspace' -- cargo
CLIPPY_FLAGS = --all-targets --target-dir '$(BUILD)/target' $(CARGOFLAGS) -- -D warnings
HAVE_USERSPACE := $(wildcard userspace/Cargo.toml)

.PHONY: all modules userspace debug test-tools test-kubelet lint lint-format lint-modules lint-proto lint-userspace lint-scripts \
	check check-debug torture demo clean help FORCE
.DEFAULT_GOAL := all

all: modules userspace

modules:
	@$(call kbuild,$(BUILD)/kernel,modules)
	@install -C -m 644 -t $(BUILD) $(BUILD)/kernel/qtfs.ko $(BUILD)/kernel/qtfs_server.ko

# One object, as in `make rust/net/qtfs_net.o`, with the crates it depends on.
rust/%.o: FORCE
	@$(call kbuild,$(BUILD)/kernel,$@)

userspace:
ifneq ($(HAVE_USERSPACE),)
	@$(CARGO) build --release --target-dir '$(BUILD)/target' $(CARGOFLAGS)
	@mkdir -p $(BUILD)/bin
	@find $(BUILD)/target/release -maxdepth 1 -type f -executable ! -name '*.so' \
		-exec install -C -m 755 -t $(BUILD)/bin {} +
	@$(RUN) -- '$(BUILD)/bin/rexec-manual' '$(BUILD)/share'
else
	@echo 'userspace/Cargo.toml does not exist yet: no programs to build.'
endif

# The same modules for the debug kernel, with the same programs beside them.
debug: userspace
	@QTFS_KERNEL=debug $(MAKE) KDIR= BUILD='$(BUILD)/debug' modules
	@ln -sfn ../bin '$(BUILD)/debug/bin'
	@ln -sfn ../tools '$(BUILD)/debug/tools'

# Programs of others that tests run in the machines.
test-tools:
	@scripts/test-tools '$(BUILD)/tools'

lint: lint-scripts lint-format lint-modules lint-proto lint-userspace

# rustfmt finds the other files of a crate from its main file.
lint-format:
	@mkdir -p '$(BUILD)'
	@$(RUN) -- rustfmt --check $(wildcard rust/*/qtfs*.rs)
ifneq ($(HAVE_USERSPACE),)
	@$(CARGO) fmt --all --check
endif

# The warnings that the kernel asks for are errors here.
lint-modules:
	@$(call kbuild,$(BUILD)/lint,CLIPPY=1 W=e modules)

# The format as a cargo crate, with its tests, and the fuzz target. Nothing is
# linked, so libFuzzer is not needed, and naming one keeps it from being built.
lint-proto:
	@mkdir -p '$(BUILD)'
	@$(RUN) -- cargo clippy --manifest-path rust/proto/Cargo.toml $(CLIPPY_FLAGS)
	@$(RUN) -- env CUSTOM_LIBFUZZER_PATH=/usr/lib/libFuzzer.a \
		cargo clippy --manifest-path rust/proto/fuzz/Cargo.toml $(CLIPPY_FLAGS)

lint-userspace:
ifneq ($(HAVE_USERSPACE),)
	@$(CARGO) clippy --workspace $(CLIPPY_FLAGS)
	@$(RUN) -- env CUSTOM_LIBFUZZER_PATH=/usr/lib/libFuzzer.a \
		cargo clippy --manifest-path userspace/rexec/fuzz/Cargo.toml $(CLIPPY_FLAGS)
endif

lint-scripts:
	@mkdir -p '$(BUILD)'
	@$(RUN) -- sh -c 'grep -rlE "^#!.*\b(ba|da)?sh$$|shellcheck shell=" scripts tests 2>/dev/null | \
		xargs shellcheck -x'

# A real kubelet, for the one test of it.
test-kubelet:
	@scripts/test-kubelet '$(BUILD)/tools'

check: all test-tools
	@tests/run $(ARGS)

check-debug: test-tools
	@tests/run --debug $(ARGS)

torture: all test-tools test-kubelet
	@tests/run --torture $(ARGS)

demo: all
	@scripts/demo $(ARGS)

clean:
	rm -rf $(BUILD)

help:
	@echo 'make             build both modules and the programs'
	@echo 'make modules     build/qtfs.ko and build/qtfs_server.ko'
	@echo 'make rust/net/qtfs_net.o   one object, and the library crates it needs'
	@echo 'make userspace   the programs, to build/bin'
	@echo 'make check       run the tests (ARGS= goes to tests/run)'
	@echo 'make check-debug the selftests on a debug kernel (built once, 30 minutes): KASAN, lockdep, leaks, ...'
	@echo 'make torture     what tries to break it, in full: hours (ARGS= as for check)'
	@echo 'make test-tools  programs of others that the tests need, to build/tools'
	@echo 'make test-kubelet  kubelet, which "make torture" needs besides (built once, some minutes)'
	@echo 'make demo        run the demonstration (ARGS= goes to scripts/demo)'
	@echo 'make lint        formatting, clippy and shellcheck; warnings are errors'
	@echo 'make clean       remove build/'
	@echo
	@echo 'KVER=7.3.4+deb13 pins the Debian kernel to build for; the newest 7.x otherwise'
	@echo 'KDIR=DIR         build against a prepared kernel tree with Rust metadata instead'
	@echo 'BUILD=DIR        where the results go (default build)'
	@echo 'V=1 W=1          show commands; more warnings, as for the kernel'
	@echo
	@echo 'Downloads and the prepared kernel are in $${QTFS_CACHE:-~/.cache/qtfs},'
	@echo 'which is safe to delete and the only other place that is written to.'
