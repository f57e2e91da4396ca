#include "compress/linalg.h"

#include <algorithm>
#include <atomic>
#include <cblas.h>
#include <exception>
#include <mutex>

#include "core/error.h"

extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dsyev_(const char* job, const char* uplo, const int* n, double* a, const int* lda, double* w,
            double* work, const int* lwork, int* info);
void dtrtri_(const char* uplo, const char* diag, const int* n, double* a, const int* lda, int* info);
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

void for_each_item(ThreadPool& pool, int64_t items, const std::function<void(int64_t)>& fn) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  pool.run([&](int, int) {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < items;) fn(i);
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = items;
    }
  });
  if (failure) std::rethrow_exception(failure);
}

void add_gram(ThreadPool& pool, const float* x, int64_t rows, int64_t k, float* h) {
  const int64_t side = tiles(k);
  for_each_item(pool, side * side, [&](int64_t task) {
    const int64_t i = task / side * tile, j = task % side * tile;
    if (i > j) return;  // the other triangle is copied
    const int64_t m = std::min(tile, k - i), n = std::min(tile, k - j);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(m), as_int(n), as_int(rows), 1, x + i,
                as_int(k), x + j, as_int(k), 1, h + i * k + j, as_int(k));
    if (i != j)
      for (int64_t r = 0; r < m; ++r)
        for (int64_t c = 0; c < n; ++c) h[(j + c) * k + i + r] = h[(i + r) * k + j + c];
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
  for_each_item(pool, tiles(m), [&](int64_t task) {
    const int64_t i = task * tile;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(std::min(tile, m - i)), as_int(n),
                as_int(k), 1, a + i * k, as_int(k), b, as_int(n), 0, c + i * n, as_int(n));
  });
}

void subtract_product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                      int64_t ldb, float* c, int64_t ldc) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(m), as_int(n), as_int(k), -1, a, as_int(lda), b,
              as_int(ldb), 1, c, as_int(ldc));
}

// With J the reversal of rows, J h J = L L^T gives h = (J L J)(J L J)^T, whose factor J L J is upper
// triangular; so U = (J L J)^-1 = J L^-1 J. One factorization and one triangular inverse, where inverting h
// first takes two.
std::vector<float> inverse_factor(const float* h, int64_t k, double damping) {
  std::vector<double> a(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j)
      a[static_cast<size_t>((k - 1 - i) * k + (k - 1 - j))] = static_cast<double>(h[i * k + j]);
    a[static_cast<size_t>((k - 1 - i) * (k + 1))] += damping;
  }
  // Column-major "lower" is row-major "upper": the factor found is L^T.
  const int n = as_int(k);
  int info = 0;
  dpotrf_("L", &n, a.data(), &n, &info);
  if (info == 0) dtrtri_("L", "N", &n, a.data(), &n, &info);
  if (info != 0) return {};
  std::vector<float> u(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i)  // a[c * k + r] is L^-1 at row r, column c <= r
    for (int64_t j = i; j < k; ++j)
      u[static_cast<size_t>(i * k + j)] =
          static_cast<float>(a[static_cast<size_t>((k - 1 - j) * k + (k - 1 - i))]);
  return u;
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
