#pragma once
// Runs exchange_rows on one rank: the rows of a routed tensor go to the ranks that hold their experts, and come back.
//
//   tokens here          rows by (e, own token)                     experts [0, 2) of rank 0, [2, 4) of rank 1
//     -> sent            runs of e, one to each rank
//     -> received        by (source, e, its token)
//   experts here         rows by (e, source, its token)
//
// How many rows go where is data of the router. A message of counts follows its decision at once; the host reads it when the first rows
// move, and it holds until the router decides anew.
#include <ATen/core/Tensor.h>

#include <string>

#include "comm/transport.h"
#include "ir/graph.h"
#include "runtime/kernels/kernel_table.h"
#include "runtime/row_counts.h"

namespace sheaf {

class RowExchange {
 public:
  // node: an exchange_rows. All those with the same `expert` may share one.
  RowExchange(const Graph& graph, const Node& node, Transport& transport, std::string what);

  const Group& group() const { return group_; }
  void forget() { counts_are_ = Counts::unknown, knows_tokens_ = false; }
  // expert: of the rows where the tokens are. Tells the group how many rows there are for each expert: on the calling thread's stream, up
  // to the copy to the host. All ranks of the group call it together.
  void announce(const at::Tensor& expert);
  // Once that copy is done. Nothing to do where it is known.
  void learn();
  std::int64_t rows_at_tokens() const { return sent_rows_.empty() ? 0 : sent_rows_.back(); }
  std::int64_t rows_at_experts() const { return received_rows_.empty() ? 0 : received_rows_.back(); }
  // For dispatch and combine: which tokens the rows are of. slot: of the rows where the tokens are; k: choices of a token.
  void learn_tokens(const at::Tensor& slot, const at::Tensor& expert, std::int64_t k);
  // A token [b, s, ..] goes once to each rank that holds some of its experts, and becomes its rows there.
  void dispatch(const at::Tensor& tokens, const at::Tensor& rows) const;
  // The adjoint: rows of a token are summed where they are, in order of their experts, then the sums of the ranks in order of the group.
  void combine(const at::Tensor& rows, const at::Tensor& tokens) const;
  // [1, 1, rows, ..], contiguous.
  void to_experts(const at::Tensor& in, const at::Tensor& out) const;
  void to_tokens(const at::Tensor& in, const at::Tensor& out) const;

 private:
  std::pair<std::int64_t, std::int64_t> experts_of(std::size_t place) const;
  void exchange(const at::Tensor& in, const std::vector<std::int64_t>& in_rows, const at::Tensor& out,
                const std::vector<std::int64_t>& out_rows) const;

  Transport& transport_;
  std::string what_;
  Group group_;
  std::int64_t num_experts_ = 0;    // of all ranks
  std::size_t self_ = 0;            // place in the group
  enum class Counts { unknown, announced, known } counts_are_ = Counts::unknown;
  bool knows_tokens_ = false;
  RowCounts
      counts_;    // rows before each of all experts and behind the last; then, by source, those before each of the own experts and so on
  std::vector<std::int64_t> sent_rows_, received_rows_;    // by place in the group, where the part ends
  at::Tensor runs_on_host_, runs_;                         // [2, 2, runs]: see learn
  at::Tensor by_expert_, by_source_;                       // the row received that is the i-th by expert; and back

  // Tokens sent and received, each once for a pair of ranks.
  std::vector<std::int64_t> sent_tokens_, received_tokens_;    // by place in the group, where the part ends
  at::Tensor token_;                                           // sent: which of the rank's tokens
  at::Tensor token_of_row_;                                    // by expert: which of the tokens received
  // The rows of a token received, each in another of these pairs (rows, tokens): in a pair no token comes twice, so its sum has one order.
  std::vector<std::pair<at::Tensor, at::Tensor>> terms_;
};

}    // namespace sheaf
