// Packed rows: attention stays inside a document, so a packed row gives what its documents give alone.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "models/oracle.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

// Tokens [begin, end) of the first row of a fixture as a row of its own.
Fixture document(const Fixture& whole, std::int64_t begin, std::int64_t end) {
  Fixture f = whole;
  const auto cut = [&](const char* name) { return whole.oracle.at(name).slice(0, 0, 1).slice(1, begin, end).contiguous(); };
  f.oracle["ids"] = cut("ids"), f.oracle["labels"] = cut("labels").clone();
  f.oracle["labels"].select(1, end - begin - 1).fill_(-100);    // the next token belongs to another document
  f.oracle["positions"] = at::arange(end - begin, at::kLong).unsqueeze(0);
  return f;
}

}    // namespace

TEST(Documents, a_packed_row_equals_its_documents_alone) {
  for (const char* name : {"qwen3", "mistral_window", "llama_bias"}) {
    const Fixture whole = read_fixture(name), a = document(whole, 0, 10), b = document(whole, 10, 24);
    Fixture packed = whole;
    for (const char* key : {"ids", "labels", "positions"}) packed.oracle[key] = at::cat({a.oracle.at(key), b.oracle.at(key)}, 1);
    packed.oracle["document_ends"] = at::full({1, 1}, 10, at::kLong);
    const StepResult p = run_step(packed), ra = run_step(a), rb = run_step(b);
    // The same sums over fewer terms: masked ones are exact zeros. fp32 rounding only.
    EXPECT_LE(relative_error(p.logits, at::cat({ra.logits, rb.logits}, 1)), 1e-6) << name;
    const double na = static_cast<double>(ra.tokens), nb = static_cast<double>(rb.tokens);
    EXPECT_NEAR(p.loss, (ra.loss * na + rb.loss * nb) / (na + nb), 1e-6 * p.loss) << name;
    for (const auto& [parameter, gradient] : p.gradients)
      EXPECT_LE(relative_error(gradient, ra.gradients.at(parameter).mul(na).add(rb.gradients.at(parameter).mul(nb)).div(na + nb)), 1e-5)
          << name << " " << parameter;
    // And attention across the boundary would show.
    packed.oracle.erase("document_ends");
    EXPECT_GE(relative_error(run_step(packed).logits, p.logits), 1e-2) << name;
  }
}
