# Two commands: `make demo` and `make test`. Each sets up, builds and runs on a fresh Debian 12 machine.
BUILD := build/release
LATHE := $(BUILD)/lathe

.PHONY: demo test build bootstrap check format asan tsan interop interop-owners tiles aarch64 fuzz bench bench-end-to-end clean

demo: build
	tools/demo $(LATHE)

test: build
	cmake --build --preset release
	ctest --preset release -j2

build: bootstrap
	cmake --preset release > /dev/null
	cmake --build --preset release --target lathe

bootstrap:
	tools/bootstrap

# What CI checks before it builds: formatting and the layers.
check: bootstrap
	tools/format --check
	tests/layering.sh

format: bootstrap
	tools/format

# The tests under sanitizers.
asan tsan: bootstrap
	cmake --preset $@ > /dev/null
	cmake --build --preset $@
	ctest --preset $@ -j2

# Others' clients (OpenAI's, Anthropic's) against the server, and checkpoints in the formats of others, both ways.
interop: build
	tests/interop/run $(LATHE) build/interop
	tests/interop/run_formats $(LATHE) build/interop

# With the code of the formats' owners: PyTorch, transformers, compressed-tensors and ModelOpt (6 GB on disk).
interop-owners: build
	tests/interop/run_owners $(LATHE) build/interop-owners

# The kernels for 64-bit ARM, cross-built, and their tests under an emulator.
aarch64: bootstrap
	tools/bootstrap tools/packages-aarch64.txt
	cmake --preset aarch64 > /dev/null
	cmake --build --preset aarch64
	ctest --preset aarch64 -j2

# The AMX kernels' tests on machines without AMX (but AVX-512 with bf16), in emulated tiles.
tiles: bootstrap
	cmake --preset tiles > /dev/null
	cmake --build --preset tiles --target test_kernels
	ctest --preset tiles -j2 -R '^kernels'

# Every fuzz target for a minute, from its corpus.
fuzz: bootstrap
	tools/bootstrap tools/packages-fuzz.txt
	cmake --preset fuzz > /dev/null
	cmake --build --preset fuzz --target fuzz/all
	tools/fuzz build/fuzz/fuzz 60

bench: bootstrap
	cmake --preset release > /dev/null
	cmake --build --preset release --target bench_kernels
	$(BUILD)/bench/bench_kernels

# Whole models of random weights; LATHE_CONFIGS names the folder with their config.json files.
bench-end-to-end: build
	bench/end_to_end --lathe $(LATHE)

clean:
	rm -rf build out
