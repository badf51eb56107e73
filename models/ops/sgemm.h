#pragma once

#include <cstdint>

// The BLAS inside LibTorch (MKL on x86, OpenBLAS on Arm), called without an operator around it.
extern "C" void sgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k,
                       const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
                       const float* beta, float* c, const int* ldc);

namespace models::ops {

enum class Layout : char { plain = 'N', transposed = 'T' };

/// A row-major operand of sgemm: the matrix itself or, stored, its transpose; `stride` between stored rows.
struct Operand {
  const float* data;
  std::int64_t stride;
  Layout layout = Layout::plain;
};

/// C [m, n] = A [m, k] B [k, n] + beta * C, row-major.
inline void sgemm(std::int64_t m, std::int64_t n, std::int64_t k, const Operand& a, const Operand& b,
                  float beta, float* c, std::int64_t c_stride) {
  // BLAS counts by columns: what it sees is C^T = B^T A^T.
  const int rows = static_cast<int>(n), columns = static_cast<int>(m), inner = static_cast<int>(k);
  const int lda = static_cast<int>(b.stride), ldb = static_cast<int>(a.stride),
            ldc = static_cast<int>(c_stride);
  const char transa = static_cast<char>(b.layout), transb = static_cast<char>(a.layout);
  const float one = 1;
  sgemm_(&transa, &transb, &rows, &columns, &inner, &one, b.data, &lda, a.data, &ldb, &beta, c, &ldc);
}

}  // namespace models::ops
