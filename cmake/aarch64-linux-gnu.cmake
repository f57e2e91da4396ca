# 64-bit ARM from another machine: Debian's cross compiler, and QEMU's emulator to run the tests. The emulated
# CPU has the first AArch64 and nothing newer, so an instruction that not every one has ends a test.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu cortex-a53 -L /usr/aarch64-linux-gnu)
# A CPU with sdot, for the kernels that choose it when it is there.
set(LATHE_DOTPROD_EMULATOR qemu-aarch64 -cpu cortex-a76 -L /usr/aarch64-linux-gnu)
# And one with everything that QEMU knows, for smmla.
set(LATHE_I8MM_EMULATOR qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu)
