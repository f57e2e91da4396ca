#include "compress/linalg.h"

#include <algorithm>
#include <cblas.h>
#include <cmath>

#include "core/error.h"

extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dsyev_(const char* job, const char* uplo, const int* n, double* a, const int* lda, double* w,
            double* work, const int* lwork, int* info);
}

namespace lathe {
namespace {

constexpr int64_t tile = 256;  // columns and rows of a task of a product

int64_t tiles(int64_t n) { return (n + tile - 1) / tile; }
int as_int(int64_t n) { return static_cast<int>(n); }

// Before the first call from any thread.
const bool one_thread_per_call = [] {
  openblas_set_num_threads(1);
  return true;
}();

}  // namespace

void add_gram(ThreadPool& pool, const float* x, int64_t rows, int64_t k, float* h) {
  const int64_t side = tiles(k);
  for_each_item(pool, side * side, [&](int64_t task) {
    const int64_t i = task / side * tile, j = task % side * tile;
    if (i > j) return;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(std::min(tile, k - i)),
                as_int(std::min(tile, k - j)), as_int(rows), 1, x + i, as_int(k), x + j, as_int(k), 1,
                h + i * k + j, as_int(k));
  });
}

void mirror_upper(ThreadPool& pool, float* h, int64_t k) {
  const int64_t side = tiles(k);
  for_each_item(pool, side * side, [&](int64_t task) {
    const int64_t i = task / side * tile, j = task % side * tile;
    if (i > j) return;
    for (int64_t r = i; r < std::min(i + tile, k); ++r)
      for (int64_t c = std::max(j, r + 1); c < std::min(j + tile, k); ++c) h[c * k + r] = h[r * k + c];
  });
}

void add_cross(ThreadPool& pool, const float* a, const float* b, int64_t rows, int64_t k, float* c) {
  const int64_t side = tiles(k);
  for_each_item(pool, side * side, [&](int64_t task) {
    const int64_t i = task / side * tile, j = task % side * tile;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(std::min(tile, k - i)),
                as_int(std::min(tile, k - j)), as_int(rows), 1, a + i, as_int(k), b + j, as_int(k), 1,
                c + i * k + j, as_int(k));
  });
}

void multiply(ThreadPool& pool, const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k) {
  const int64_t side = tiles(n);
  for_each_item(pool, tiles(m) * side, [&](int64_t task) {
    const int64_t i = task / side * tile, j = task % side * tile;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(std::min(tile, m - i)),
                as_int(std::min(tile, n - j)), as_int(k), 1, a + i * k, as_int(k), b + j, as_int(n), 0,
                c + i * n + j, as_int(n));
  });
}

void subtract_product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                      int64_t ldb, float* c, int64_t ldc) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(m), as_int(n), as_int(k), -1, a, as_int(lda), b,
              as_int(ldb), 1, c, as_int(ldc));
}

namespace {

constexpr int64_t block = 128;  // columns that are factored, or inverted, at once

// The upper triangular r with r r^T = a, and its inverse, of n x n elements that lie `stride` apart: in
// double, since all other blocks are multiplied with them. False when a is not positive definite.
bool factor_block(float* a, int64_t n, int64_t stride, std::vector<float>& inverse) {
  std::vector<double> r(static_cast<size_t>(n * n)), u(r.size());
  const auto at = [n](int64_t i, int64_t j) { return static_cast<size_t>(i * n + j); };
  for (int64_t j = n - 1; j >= 0; --j) {
    for (int64_t i = 0; i <= j; ++i) {
      double sum = static_cast<double>(a[i * stride + j]);
      for (int64_t k = j + 1; k < n; ++k) sum -= r[at(i, k)] * r[at(j, k)];
      r[at(i, j)] = sum;
    }
    if (!(r[at(j, j)] > 0)) return false;
    const double diagonal = std::sqrt(r[at(j, j)]);
    for (int64_t i = 0; i <= j; ++i) r[at(i, j)] /= diagonal;
    r[at(j, j)] = diagonal;
  }
  for (int64_t i = n - 1; i >= 0; --i) {  // row i of r u = 1
    u[at(i, i)] = 1 / r[at(i, i)];
    for (int64_t k = i + 1; k < n; ++k)
      for (int64_t j = k; j < n; ++j) u[at(i, j)] -= r[at(i, k)] * u[at(k, j)];
    for (int64_t j = i + 1; j < n; ++j) u[at(i, j)] /= r[at(i, i)];
  }
  inverse.assign(r.size(), 0);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i; j < n; ++j) {
      a[i * stride + j] = static_cast<float>(r[at(i, j)]);
      inverse[at(i, j)] = static_cast<float>(u[at(i, j)]);
    }
  return true;
}

}  // namespace

// First h = R R^T with R upper triangular, from the last block of columns to the first, each then taken from
// what is above and to the left of it; after that U = R^-1, from the first block of columns to the last. In
// floats: what rounding does to h there is what it did when h was summed in floats, far less than damping.
bool inverse_factor(ThreadPool& pool, float* h, int64_t k) {
  const int64_t blocks = (k + block - 1) / block;
  std::vector<std::vector<float>> inverses(static_cast<size_t>(blocks));
  std::vector<float> column(static_cast<size_t>(k * block)), product(column.size());
  for (int64_t b = blocks - 1; b >= 0; --b) {
    const int64_t first = b * block, n = std::min(block, k - first);
    std::vector<float>& inverse = inverses[static_cast<size_t>(b)];
    if (!factor_block(h + first * (k + 1), n, k, inverse)) return false;
    for_each_item(pool, tiles(first),
                  [&](int64_t task) {  // R above the block: h times the inverse transposed
                    const int64_t i = task * tile, m = std::min(tile, first - i);
                    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_int(m), as_int(n), as_int(n), 1,
                                h + i * k + first, as_int(k), inverse.data(), as_int(n), 0,
                                column.data() + i * n, as_int(n));
                    for (int64_t r = i; r < i + m; ++r)
                      std::copy_n(column.data() + r * n, n, h + r * k + first);
                  });
    const int64_t side = tiles(first);
    for_each_item(pool, side * side, [&](int64_t task) {
      const int64_t i = task / side * tile, j = task % side * tile;
      if (i > j) return;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_int(std::min(tile, first - i)),
                  as_int(std::min(tile, first - j)), as_int(n), -1, column.data() + i * n, as_int(n),
                  column.data() + j * n, as_int(n), 1, h + i * k + j, as_int(k));
    });
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * block, n = std::min(block, k - first);
    const std::vector<float>& inverse = inverses[static_cast<size_t>(b)];
    for_each_item(pool, tiles(first), [&](int64_t task) {
      const int64_t i = task * tile, m = std::min(tile, first - i);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(m), as_int(n), as_int(n), 1,
                  h + i * k + first, as_int(k), inverse.data(), as_int(n), 0, product.data() + i * n,
                  as_int(n));
    });
    for_each_item(pool, tiles(first), [&](int64_t task) {  // what is right of the diagonal in rows of a tile
      const int64_t i = task * tile, m = std::min(tile, first - i);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(m), as_int(n), as_int(first - i), -1,
                  h + i * (k + 1), as_int(k), product.data() + i * n, as_int(n), 0, h + i * k + first,
                  as_int(k));
    });
    for (int64_t r = 0; r < n; ++r) {
      float* row = h + (first + r) * k;
      std::fill_n(row, first, 0.0f);
      std::copy_n(inverse.data() + r * n, n, row + first);
    }
  }
  return true;
}

std::vector<float> leading_eigenvectors(std::vector<double> a, int64_t n, int64_t count) {
  const int size = as_int(n), room = as_int(34 * n);
  int info = 0;
  std::vector<double> values(static_cast<size_t>(n)), work(static_cast<size_t>(room));
  dsyev_("V", "U", &size, a.data(), &size, values.data(), work.data(), &room, &info);
  if (info != 0) fail("the eigenvalues of a [{}, {}] matrix were not found", n, n);
  std::vector<float> out(static_cast<size_t>(n * count));  // LAPACK's are columns, in ascending order
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < count; ++j)
      out[static_cast<size_t>(i * count + j)] =
          static_cast<float>(a[static_cast<size_t>((n - 1 - j) * n + i)]);
  return out;
}

bool solve_rows(ThreadPool& pool, const float* h, int64_t k, double damping, float* b, int64_t rows) {
  std::vector<double> a(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k * k; ++i) a[static_cast<size_t>(i)] = static_cast<double>(h[i]);
  for (int64_t i = 0; i < k; ++i) a[static_cast<size_t>(i * (k + 1))] += damping;
  const int n = as_int(k);
  int info = 0;
  dpotrf_("L", &n, a.data(), &n, &info);
  if (info != 0) return false;
  constexpr int64_t strip = 64;
  for_each_item(pool, (rows + strip - 1) / strip, [&](int64_t task) {
    const int64_t first = task * strip, m = std::min(strip, rows - first);
    std::vector<double> x(static_cast<size_t>(m * k));
    std::copy_n(b + first * k, m * k, x.data());
    // Column-major, x is k x m: L L^T x = b.
    for (const CBLAS_TRANSPOSE transpose : {CblasNoTrans, CblasTrans})
      cblas_dtrsm(CblasColMajor, CblasLeft, CblasLower, transpose, CblasNonUnit, n, as_int(m), 1, a.data(), n,
                  x.data(), n);
    std::transform(x.begin(), x.end(), b + first * k, [](double v) { return static_cast<float>(v); });
  });
  return true;
}

}  // namespace lathe
