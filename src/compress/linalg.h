// Dense linear algebra of the compression methods, over OpenBLAS. OpenBLAS runs on the calling thread alone:
// work is split here, in tiles whose size does not depend on the number of threads, so neither do the bits.
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"

namespace lathe {

// h [k, k] += x^T x, of which only the upper triangle counts; x [rows, k].
void add_gram(ThreadPool&, const float* x, int64_t rows, int64_t k, float* h);
// The lower triangle becomes what the upper one is.
void mirror_upper(ThreadPool&, float* h, int64_t k);
// c [k, k] += a^T b; a and b [rows, k].
void add_cross(ThreadPool&, const float* a, const float* b, int64_t rows, int64_t k, float* c);
// c [m, n] = a [m, k] b [k, n].
void multiply(ThreadPool&, const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k);

// c [m, n] -= a^T b with a [k, m] and b [k, n], rows lda, ldb and ldc floats apart: on the calling thread.
void subtract_product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                      int64_t ldb, float* c, int64_t ldc);

// h [k, k], symmetric, of which the upper triangle is read, becomes the upper triangular U with U^T U = h^-1,
// the rest zero. False, and h spoiled, when h is not positive definite.
bool inverse_factor(ThreadPool&, float* h, int64_t k);
// Eigenvectors of the largest eigenvalues of the symmetric a [n, n], as the columns of [n, count].
std::vector<float> leading_eigenvectors(std::vector<double> a, int64_t n, int64_t count);
// x with (h + damping I) x = b^T, as [rows, k] row-major like b: one right-hand side a row. False, and b as
// it was, when h + damping I is not positive definite.
bool solve_rows(ThreadPool&, const float* h, int64_t k, double damping, float* b, int64_t rows);

}  // namespace lathe
