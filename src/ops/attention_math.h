#pragma once
// What the portable kernels of attention and attention_grad share: a batch row as blocks of queries, each with the keys that it may look
// at, so that no [s, u] of a whole row is ever in memory. ATen headers: .cpp files only.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>

#include <limits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ir/op.h"

namespace sheaf {

// Documents [begin, end) of a row of s tokens, empty ones left out. ends: [c], non-decreasing, of any device; what remains after the last
// is one more document. Undefined: the row is one document. Waits for the device.
inline std::vector<std::pair<std::int64_t, std::int64_t>> document_ranges(const at::Tensor& ends, std::int64_t s) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  std::int64_t begin = 0;
  const auto add = [&](std::int64_t end) {
    SHEAF_CHECK(end >= begin && end <= s, "a document ends at {}, in a row of {} it starts at {}", end, s, begin);
    if (end > begin) ranges.emplace_back(begin, end);
    begin = end;
  };
  if (ends.defined()) {
    const at::Tensor host = ends.to(at::kCPU, at::kLong).contiguous();
    for (std::int64_t i = 0; i < host.numel(); ++i) add(host.const_data_ptr<std::int64_t>()[i]);
  }
  add(s);
  return ranges;
}

struct AttentionBlock {
  std::int64_t begin, end;              // queries
  std::int64_t keys_begin, keys_end;    // all that any of them may look at
};

// Blocks of a row of s queries and u keys; with documents s and u are the same tokens.
inline std::vector<AttentionBlock> attention_blocks(const at::Tensor& ends, const Attrs& attrs, std::int64_t s, std::int64_t u) {
  constexpr std::int64_t kQueries = 128;
  const std::int64_t window = attrs.integer("window");
  std::vector<AttentionBlock> blocks;
  for (const auto& [first, last] : document_ranges(ends, s))
    for (std::int64_t begin = first; begin < last; begin += kQueries) {
      const std::int64_t end = std::min(begin + kQueries, last), document_end = ends.defined() ? last : u;
      const std::int64_t keys_begin = std::max(first, window > 0 ? begin - window + 1 : 0);
      const std::int64_t keys_end = attrs.flag("causal") ? std::min(end, document_end) : document_end;
      blocks.push_back({begin, end, std::min(keys_begin, keys_end), keys_end});
    }
  return blocks;
}

// [s hk r d] -> [hk, r s, d], and back into `out`.
inline at::Tensor heads_first(const at::Tensor& q, at::ScalarType dtype) {
  return q.permute({1, 2, 0, 3}).to(dtype).reshape({q.size(1), q.size(2) * q.size(0), q.size(3)});
}
inline void heads_last(const at::Tensor& x, const at::Tensor& out) {
  out.copy_(x.view({out.size(1), out.size(2), out.size(0), out.size(3)}).permute({2, 0, 1, 3}));
}

// The block's part of a row: queries of [s ..], keys of [u ..].
inline at::Tensor queries_of(const at::Tensor& row, const AttentionBlock& block) {
  return row.narrow(0, block.begin, block.end - block.begin);
}
inline at::Tensor keys_of(const at::Tensor& row, const AttentionBlock& block) {
  return row.narrow(0, block.keys_begin, block.keys_end - block.keys_begin);
}

// scale q k^T of a block, -inf where a query may not look: [hk, r n, m]. q_hd is [hk, r n, d], k is [m hk d].
inline at::Tensor block_scores(const at::Tensor& q_hd, const at::Tensor& k, const Attrs& attrs, const AttentionBlock& block) {
  at::Tensor scores = at::bmm(q_hd, k.permute({1, 2, 0}).to(q_hd.scalar_type())).mul_(attrs.number("scale"));
  const std::int64_t n = block.end - block.begin, m = k.size(0), window = attrs.integer("window");
  const at::Tensor i = at::arange(block.begin, block.end, k.options().dtype(at::kLong)).unsqueeze(1),
                   j = at::arange(block.keys_begin, block.keys_end, k.options().dtype(at::kLong)).unsqueeze(0);
  at::Tensor hidden;    // [n, m]
  const auto hide = [&](const at::Tensor& where) { hidden = hidden.defined() ? hidden.logical_or(where) : where; };
  if (attrs.flag("causal")) hide(j.gt(i));
  if (window > 0) hide(j.le(i.sub(window)));
  if (hidden.defined()) scores.view({q_hd.size(0), q_hd.size(1) / n, n, m}).masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  return scores;
}

// The dtype that softmax is computed in.
inline at::ScalarType attention_dtype(const at::Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// Factors of attention's operands, with the optional ones where they are given.
std::string attention_rule(const Types& in, bool gradient);
// Of the two products of the forward: causal halved, window counted, documents not (their ends are data).
double attention_flops(const Attrs& attrs, const Types& in);

}    // namespace sheaf
