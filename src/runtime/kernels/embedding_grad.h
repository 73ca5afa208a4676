#pragma once
// Device kernel of op embedding_grad on ids that are sorted already: sums without atomics, in the order of the tokens.
#include <cstdint>

namespace sheaf {

enum class DyType { fp32, bf16, fp16 };

struct EmbeddingGradShape {
  std::int64_t tokens, k;      // dy is [tokens, k]
  std::int64_t begin, rows;    // out [rows, k] answers for the ids [begin, begin + rows)
  std::int64_t padding_id;     // gets no gradient; -1: none
};

// out[id - begin, :] := sum over the places p of id in sorted_ids of dy[order[p], :], in fp32 and in the order of p: with a stable sort the
// bits depend on nothing but the inputs. `out` is zero before. Returns the run-time library's error text, nullptr if all is well.
const char* embedding_grad_device(float* out, const void* dy, DyType type, const std::int64_t* sorted_ids, const std::int64_t* order,
                                  const EmbeddingGradShape& shape, void* stream);

}    // namespace sheaf
