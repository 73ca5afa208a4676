#pragma once
// Operands of a contraction, viewed (or copied) as matrices. Shared by einsum's own kernel and by kernel rows of einsum, which differ in
// the product only. ATen headers: .cpp files of ops and of kernels only.
#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/contraction.h"

namespace sheaf {

// What a product of x and y works on. They lack the dims x_only and y_only; c.k is not empty.
struct Matrices {
  at::Tensor a, b;                  // [m, k] and [k, n], or batches of them: views, or copies where strides do not merge
  std::optional<at::Tensor> out;    // [m, n]: a view; none where strides do not merge
};
Matrices matrices(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out);
// A product [m, n] or a batch of them, in memory without gaps, as a view with the dims of `out`.
at::Tensor as_output(const Contraction& c, const at::Tensor& product, const at::Tensor& out);

// out := a b for matrices [m, k], [k, n] or batches of them; `out` may have any strides.
using MatrixProduct = void (*)(at::Tensor& out, const at::Tensor& a, const at::Tensor& b);

// out := x y, by one product whose results are of dtype `product_dtype`, written straight into `out` where that is its dtype and its
// strides allow; else copied.
void multiply_matrices(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out, at::ScalarType product_dtype,
                       MatrixProduct product);

// out := the contraction of x and y, sums over x_only and y_only included: what einsum's own kernel does.
void contract(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out);

// x with its dims in the order of `out`, size 1 where x lacks a factor.
at::Tensor aligned(const at::Tensor& x, const Rule::Factors& from, const Rule::Factors& out);

}    // namespace sheaf
