// For functions of plain loops that compression calls: compiled again for wider vectors, one chosen when the
// program is loaded, by the CPU alone: LATHE_ISA does not rule it, so nothing that runs a model may be one.
// All give the same bits: the build has -ffp-contract=off, and sums keep chains of their own. What such a
// function calls must be inlined into it (LATHE_ALWAYS_INLINE), or it is the narrow one.
#pragma once

#define LATHE_ALWAYS_INLINE __attribute__((always_inline)) inline
// Not under sanitizers: what chooses runs before their runtime has started.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define LATHE_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LATHE_VECTOR_CLONES
#endif
