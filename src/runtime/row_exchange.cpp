#include "runtime/row_exchange.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "base/error.h"
#include "ops/routing.h"
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

std::pair<std::int64_t, std::int64_t> RowExchange::experts_of(std::size_t place) const {
  return piece(num_experts_, static_cast<std::int64_t>(group_.size()), static_cast<std::int64_t>(place));
}

void RowExchange::announce(const at::Tensor& expert) {
  const auto [first, last] = experts_of(self_);
  const std::int64_t n = static_cast<std::int64_t>(group_.size()), own = last - first;
  if (!counts_.defined()) {
    std::vector<std::int32_t> up_to(static_cast<std::size_t>(num_experts_) + 1);
    std::iota(up_to.begin(), up_to.end(), -1);
    counts_ = RowCounts(up_to, n * (own + 1), expert.device());
    const auto runs = at::TensorOptions().dtype(at::kLong);
    runs_on_host_ = at::empty({2, 2, n * own}, runs.pinned_memory(expert.is_cuda()));
    runs_ = at::empty({2, 2, n * own}, runs.device(expert.device()));
  }
  counts_.count(expert);
  std::vector<ConstBytes> send;
  std::vector<Bytes> recv;
  std::int32_t* received = counts_.on_device() + num_experts_ + 1;
  for (std::size_t i = 0; i < group_.size(); ++i, received += own + 1) {
    const auto [begin, end] = experts_of(i);
    send.push_back({counts_.on_device() + begin, (end - begin + 1) * 4});
    recv.push_back({received, (own + 1) * 4});
  }
  transport_.exchange(group_, send, recv, what_);
  counts_.to_host();
  counts_are_ = Counts::announced, knows_tokens_ = false;
}

// Rows were received in runs of (source, e) and lie in runs of (e, source): a row moves as far as its run does. For either order: where
// its runs end, and how far each is from its place in the other one.
void RowExchange::learn() {
  if (counts_are_ == Counts::known) return;
  SHEAF_CHECK(counts_are_ == Counts::announced, "{}: rows move before their number was announced", what_);
  const std::size_t n = group_.size();
  const auto own = static_cast<std::size_t>(experts_of(self_).second - experts_of(self_).first);
  const std::int32_t *const before = counts_.on_host(), *const received = before + num_experts_ + 1;    // [source, e]
  const auto rows_of = [&](std::size_t i, std::size_t e) { return received[i * (own + 1) + e + 1] - received[i * (own + 1) + e]; };
  sent_rows_.assign(n, 0), received_rows_.assign(n, 0);
  std::vector<std::int64_t> run(n * own);    // where that of (source, e) begins
  std::int64_t *const by_source = runs_on_host_.data_ptr<std::int64_t>(), *const by_expert = by_source + 2 * n * own;
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sent_rows_[i] = before[experts_of(i).second];
    for (std::size_t e = 0; e < own; ++e) run[i * own + e] = rows, by_source[i * own + e] = rows += rows_of(i, e);
    received_rows_[i] = rows;
  }
  std::int64_t place = 0;
  for (std::size_t e = 0; e < own; ++e)
    for (std::size_t i = 0; i < n; ++i) {
      const std::int64_t moved = place - run[i * own + e];
      by_source[n * own + i * own + e] = moved, by_expert[n * own + e * n + i] = -moved;
      by_expert[e * n + i] = place += rows_of(i, e);
    }
  runs_.copy_(runs_on_host_, /*non_blocking=*/true);
  const at::Tensor all = at::arange(rows, runs_.options());
  const auto places = [&](std::int64_t order) {
    if (rows == 0) return all;
    const at::Tensor run_of_row = at::searchsorted(runs_[order][0], all, /*out_int32=*/false, /*right=*/true);
    return runs_[order][1].index_select(0, run_of_row).add_(all);
  };
  by_source_ = places(0), by_expert_ = places(1);
  counts_are_ = Counts::known;
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

void RowExchange::learn_tokens(const at::Tensor& slot, const at::Tensor& expert, std::int64_t k) {
  if (knows_tokens_) return;
  const std::size_t n = group_.size();
  const at::Device device = expert.device();
  const at::Tensor slots = slot.reshape({-1}).to(at::kCPU);
  // Of the rows to each rank, in their order: the token of each, as its place among the tokens that go there.
  std::vector<std::int64_t> tokens, place_of_row;
  std::unordered_map<std::int64_t, std::int64_t> place;
  sent_tokens_.assign(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    place.clear();
    for (std::int64_t r = i == 0 ? 0 : sent_rows_[i - 1]; r < sent_rows_[i]; ++r) {
      const std::int64_t token = slots.data_ptr<std::int32_t>()[r] / k;
      const auto [entry, fresh] = place.emplace(token, static_cast<std::int64_t>(place.size()));
      if (fresh) tokens.push_back(token);
      place_of_row.push_back(entry->second);
    }
    sent_tokens_[i] = static_cast<std::int64_t>(tokens.size());
  }
  const auto on_device = [&](const std::vector<std::int64_t>& list) {
    at::Tensor t = at::empty({static_cast<std::int64_t>(list.size())}, at::kLong);
    std::copy(list.begin(), list.end(), t.data_ptr<std::int64_t>());
    return t.to(device);
  };
  const at::Tensor sent = on_device(place_of_row).view({1, 1, -1});
  const at::Tensor received = at::empty({1, 1, rows_at_experts()}, sent.options());
  exchange(sent, sent_rows_, received, received_rows_);
  transport_.wait();
  const at::Tensor host = received.view({-1}).to(at::kCPU), order = by_expert_.to(at::kCPU);
  received_tokens_.assign(n, 0);
  std::vector<std::int64_t> token_received(static_cast<std::size_t>(host.numel()));    // by row received
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t before = i == 0 ? 0 : received_tokens_[i - 1];
    std::int64_t count = 0;
    for (std::int64_t r = i == 0 ? 0 : received_rows_[i - 1]; r < received_rows_[i]; ++r) {
      const std::int64_t at = host.data_ptr<std::int64_t>()[r];
      token_received[static_cast<std::size_t>(r)] = before + at, count = std::max(count, at + 1);
    }
    received_tokens_[i] = before + count;
  }
  std::vector<std::int64_t> by_expert(token_received.size());
  std::vector<std::size_t> terms(static_cast<std::size_t>(n == 0 ? 0 : received_tokens_.back()));    // of a token, so far
  std::vector<std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>>> lists;
  for (std::size_t r = 0; r < by_expert.size(); ++r) {
    const std::int64_t token = by_expert[r] = token_received[static_cast<std::size_t>(order.data_ptr<std::int64_t>()[r])];
    const std::size_t term = terms[static_cast<std::size_t>(token)]++;
    if (term == lists.size()) lists.emplace_back();
    lists[term].first.push_back(static_cast<std::int64_t>(r)), lists[term].second.push_back(token);
  }
  token_ = on_device(tokens), token_of_row_ = on_device(by_expert);
  terms_.clear();
  for (const auto& [rows, of] : lists) terms_.emplace_back(on_device(rows), on_device(of));
  knows_tokens_ = true;
}

void RowExchange::dispatch(const at::Tensor& tokens, const at::Tensor& rows) const {
  const at::Tensor x = as_tokens(tokens);
  const at::Tensor sent = x.index_select(0, token_).unsqueeze(0).unsqueeze(0);
  const at::Tensor received = at::empty({1, 1, received_tokens_.back(), x.size(1)}, x.options());
  exchange(sent, sent_tokens_, received, received_tokens_);
  at::Tensor out = as_rows(rows);
  if (out.numel() > 0) at::index_select_out(out, received[0][0], 0, token_of_row_);
}

void RowExchange::combine(const at::Tensor& rows, const at::Tensor& tokens) const {
  const at::Tensor x = as_rows(rows);
  at::Tensor out = as_tokens(tokens);
  const bool narrow = out.scalar_type() == at::kBFloat16 || out.scalar_type() == at::kHalf;
  const auto wide = narrow ? out.options().dtype(at::kFloat) : out.options();
  at::Tensor sums = at::zeros({received_tokens_.back(), out.size(1)}, wide);
  for (const auto& [row, token] : terms_) sums.index_add_(0, token, x.index_select(0, row).to(sums.scalar_type()));
  const at::Tensor sent = sums.to(out.scalar_type()).unsqueeze(0).unsqueeze(0);
  const at::Tensor received = at::empty({1, 1, sent_tokens_.back(), out.size(1)}, out.options());
  exchange(sent, received_tokens_, received, sent_tokens_);
  at::Tensor total = at::zeros(out.sizes(), wide);
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const std::int64_t begin = i == 0 ? 0 : sent_tokens_[i - 1], count = sent_tokens_[i] - begin;
    if (count > 0) total.index_add_(0, token_.narrow(0, begin, count), received[0][0].narrow(0, begin, count).to(total.scalar_type()));
  }
  out.copy_(total);
}

void RowExchange::to_experts(const at::Tensor& in, const at::Tensor& out) const {
  SHEAF_CHECK(in.size(2) == rows_at_tokens() && out.size(2) == rows_at_experts(), "{}: {} rows to {}, known are {} and {}", what_,
              in.size(2), out.size(2), rows_at_tokens(), rows_at_experts());
  const at::Tensor received = at::empty_like(out);
  exchange(in, sent_rows_, received, received_rows_);
  at::Tensor sorted = out;
  if (out.numel() > 0) at::index_select_out(sorted, received, 2, by_expert_);
}

void RowExchange::to_tokens(const at::Tensor& in, const at::Tensor& out) const {
  SHEAF_CHECK(in.size(2) == rows_at_experts() && out.size(2) == rows_at_tokens(), "{}: {} rows to {}, known are {} and {}", what_,
              in.size(2), out.size(2), rows_at_experts(), rows_at_tokens());
  exchange(in.numel() > 0 ? in.index_select(2, by_source_) : in, received_rows_, out, sent_rows_);
}

}    // namespace sheaf
