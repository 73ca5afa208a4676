#pragma once
// For tests that need an NVIDIA GPU: skipped only where there is none.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "ops/aten.h"
#include "ops/op_table.h"
#include "runtime/kernels/kernel_table.h"
#include "runtime/scratch.h"

namespace sheaf::testing {

class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no GPU";
    install_scratch_allocators();    // before the first tensor on the GPU
  }
  c10::InferenceMode no_tape_;
};

inline const at::Device kGpu{at::kCUDA, 0};

// ||a - b|| / ||b|| in fp64 on the host.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.cpu().to(at::kDouble), y = b.cpu().to(at::kDouble);
  if (x.sizes() != y.sizes()) return INFINITY;
  const double norm = y.norm().item<double>();
  const double error = x.sub(y).norm().item<double>();
  return error == 0 ? 0 : error / norm;
}

// Normal numbers, rounded to `dtype`, on the host.
at::Tensor normal(const Shape& shape, at::ScalarType dtype, std::uint64_t seed);

// A case of einsum.
struct Product {
  const char *name, *rule;
  Shape x, y;
};
inline std::ostream& operator<<(std::ostream& out, const Product& p) { return out << p.rule; }

// The op's own kernel on these tensors; outputs as its rule and dtypes say, on the device of the first operand. Absent operands: undefined.
std::vector<at::Tensor> run_portable(std::string_view op, const std::vector<at::Tensor>& in, const Attrs& attrs);
// The row that CUDA takes for these tensors; nullptr: none.
const KernelRow* cuda_row(std::string_view op, bool deterministic, const std::vector<at::Tensor>& in, const Attrs& attrs);
// Runs it, tuned before where it can be; fails the test if there is none, or not one of that name.
std::vector<at::Tensor> run_row(std::string_view op, std::string_view name, bool deterministic, const std::vector<at::Tensor>& in,
                                const Attrs& attrs);

// Of one call of many.
double milliseconds(const std::function<void()>& work);
// Of a call of a row, with its scratch in a slot as in a run.
double milliseconds(const KernelRow& row, const std::vector<at::Tensor>& in, std::vector<at::Tensor>& out, const Attrs& attrs);
// Of a copy that reads and writes so many bytes together, as a kernel does that is compared with it: a short call does not reach what a
// long one does. Measured once for each number.
double copied_bytes_per_ms(double bytes);
// With SHEAF_TIMES=1: prints how long the row takes on these tensors, and which share of the bandwidth of a copy of as many bytes those of
// its operands and outputs come to. Row nullptr: the op's own kernel.
bool times_wanted();
void print_time(std::string_view op, const char* row, const std::vector<at::Tensor>& in, const Attrs& attrs);

}    // namespace sheaf::testing
