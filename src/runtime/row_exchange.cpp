#include "runtime/row_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "runtime/collectives.h"

namespace sheaf {

RowExchange::RowExchange(const Graph& graph, const Node& node, Transport& transport, std::string what)
    : transport_(transport), what_(std::move(what)) {
  const Placement &from = graph.type(node.in[0]).placement, &to = graph.type(node.out[0]).placement;
  const std::vector<Atom>& over = to.dim(0).empty() ? from.dim(0) : to.dim(0);
  group_ = group_of(graph.mesh, over, transport.rank());
  self_ = static_cast<std::size_t>(std::find(group_.begin(), group_.end(), transport.rank()) - group_.begin());
  num_experts_ = graph.type(node.in[0]).shape[0];
}

void RowExchange::learn(const at::Tensor& expert) {
  if (known_) return;
  const std::size_t n = group_.size();
  const auto experts_of = [&](std::size_t i) { return piece(num_experts_, static_cast<std::int64_t>(n), static_cast<std::int64_t>(i)); };
  const std::int64_t own = experts_of(self_).second - experts_of(self_).first;
  const at::Tensor rows = expert.reshape({-1}).to(at::kCPU);
  at::Tensor counts = at::zeros({num_experts_}, at::kLong);
  for (std::int64_t r = 0; r < rows.numel(); ++r) ++counts.data_ptr<std::int64_t>()[rows.data_ptr<std::int32_t>()[r]];
  const at::Tensor sent = counts.to(expert.device()), received = at::empty({static_cast<std::int64_t>(n), own}, sent.options());
  std::vector<ConstBytes> send;
  std::vector<Bytes> recv;
  for (std::size_t i = 0; i < n; ++i) {
    const auto [begin, end] = experts_of(i);
    send.push_back({sent.data_ptr<std::int64_t>() + begin, (end - begin) * 8});
    recv.push_back({received.data_ptr<std::int64_t>() + static_cast<std::int64_t>(i) * own, own * 8});
  }
  transport_.exchange(group_, send, recv, what_);
  transport_.wait();    // with a time limit, which a copy has not
  const at::Tensor host = received.to(at::kCPU);
  const auto* const from = host.data_ptr<std::int64_t>();    // [source, e]

  sent_rows_.assign(n, 0), received_rows_.assign(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    sent_rows_[i] = i == 0 ? 0 : sent_rows_[i - 1];
    received_rows_[i] = i == 0 ? 0 : received_rows_[i - 1];
    for (std::int64_t e = experts_of(i).first; e < experts_of(i).second; ++e) sent_rows_[i] += counts.data_ptr<std::int64_t>()[e];
    for (std::int64_t e = 0; e < own; ++e) received_rows_[i] += from[static_cast<std::int64_t>(i) * own + e];
  }
  std::vector<std::int64_t> run(n * static_cast<std::size_t>(own));    // where that of (source, e) begins among the rows received
  std::int64_t at = 0;
  for (std::size_t k = 0; k < run.size(); ++k) run[k] = at, at += from[k];
  at::Tensor by_expert = at::empty({at}, at::kLong), by_source = at::empty({at}, at::kLong);
  std::int64_t place = 0;
  for (std::int64_t e = 0; e < own; ++e)
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t k = i * static_cast<std::size_t>(own) + static_cast<std::size_t>(e);
      for (std::int64_t r = run[k]; r < run[k] + from[k]; ++r, ++place)
        by_expert.data_ptr<std::int64_t>()[place] = r, by_source.data_ptr<std::int64_t>()[r] = place;
    }
  by_expert_ = by_expert.to(expert.device()), by_source_ = by_source.to(expert.device());
  known_ = true;
}

void RowExchange::exchange(const at::Tensor& in, const std::vector<std::int64_t>& in_rows, const at::Tensor& out,
                           const std::vector<std::int64_t>& out_rows) const {
  std::int64_t bytes = in.element_size();    // of a row
  for (std::int64_t d = 3; d < in.dim(); ++d) bytes *= in.size(d);
  std::vector<ConstBytes> send;
  std::vector<Bytes> recv;
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const std::int64_t first_in = i == 0 ? 0 : in_rows[i - 1], first_out = i == 0 ? 0 : out_rows[i - 1];
    send.push_back({static_cast<const char*>(in.data_ptr()) + first_in * bytes, (in_rows[i] - first_in) * bytes});
    recv.push_back({static_cast<char*>(out.data_ptr()) + first_out * bytes, (out_rows[i] - first_out) * bytes});
  }
  transport_.begin_batch();
  transport_.exchange(group_, send, recv, what_);
  transport_.end_batch();
}

void RowExchange::to_experts(const at::Tensor& in, const at::Tensor& out) const {
  SHEAF_CHECK(in.size(2) == rows_at_tokens() && out.size(2) == rows_at_experts(), "{}: {} rows to {}, known are {} and {}", what_, in.size(2),
              out.size(2), rows_at_tokens(), rows_at_experts());
  const at::Tensor received = at::empty_like(out);
  exchange(in, sent_rows_, received, received_rows_);
  at::Tensor sorted = out;
  if (out.numel() > 0) at::index_select_out(sorted, received, 2, by_expert_);
}

void RowExchange::to_tokens(const at::Tensor& in, const at::Tensor& out) const {
  SHEAF_CHECK(in.size(2) == rows_at_experts() && out.size(2) == rows_at_tokens(), "{}: {} rows to {}, known are {} and {}", what_, in.size(2),
              out.size(2), rows_at_experts(), rows_at_tokens());
  exchange(in.numel() > 0 ? in.index_select(2, by_source_) : in, received_rows_, out, sent_rows_);
}

}    // namespace sheaf
