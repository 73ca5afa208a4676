// Ops on routed tensors: what a kernel computes on rows is what the op means on whole tensors, on one rank and on pieces of several.
#include "ops/routing.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/text.h"
#include "ops/aten.h"
#include "ops/simulated_ranks.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

// A rank's piece: experts [first, first + e), and of the tokens what `chosen` has.
struct Rows {
  at::Tensor chosen;    // whole slot or expert, of the piece
  std::int64_t first_expert, k;

  std::int64_t count() const { return chosen.gt(0).sum().item<std::int64_t>(); }
  at::Tensor packed(const at::Tensor& whole, Domain::Kind kind) const {
    const at::Tensor at = chosen.nonzero().contiguous();    // sorted by (e, b, s)
    at::Tensor rows = at::empty({count()}, at::kLong);
    if (kind == Domain::Kind::routed) {
      Shape shape = {1, 1, count()};
      shape.insert(shape.end(), whole.sizes().begin() + 3, whole.sizes().end());
      return whole.index({at.select(1, 0), at.select(1, 1), at.select(1, 2)}).reshape(shape).contiguous();
    }
    for (std::int64_t r = 0; r < count(); ++r) {
      const auto* const ebs = at.data_ptr<std::int64_t>() + 3 * r;
      const std::int64_t choice = whole.select(0, ebs[0]).select(0, ebs[1]).select(0, ebs[2]).item<std::int64_t>() - 1;
      rows.data_ptr<std::int64_t>()[r] =
          kind == Domain::Kind::expert ? ebs[0] + first_expert : (ebs[1] * whole.size(2) + ebs[2]) * k + choice;
    }
    return rows.view({1, 1, count()});
  }
  at::Tensor unpacked(const at::Tensor& rows) const {
    Shape shape = chosen.sizes().vec();
    shape.insert(shape.end(), rows.sizes().begin() + 3, rows.sizes().end());
    at::Tensor whole = at::zeros(shape, rows.options());
    Shape flat(rows.sizes().begin() + 2, rows.sizes().end());
    const at::Tensor at = chosen.nonzero();
    whole.index_put_({at.select(1, 0), at.select(1, 1), at.select(1, 2)}, rows.reshape(flat));
    return whole;
  }
};

class Routing : public ::testing::TestWithParam<Param> {};

}    // namespace

TEST_P(Routing, rows_are_what_whole_tensors_mean) {
  const OpDef& op = *GetParam().op;
  const Case& c = *GetParam().c;
  if (!op.meaning || exchanges_rows(op)) return;
  const Call call = make_call(op, c, Mode::fp64, 21);
  const auto domain = [&](std::size_t i) { return c.domain[std::min(i, c.domain.size() - 1)].kind; };
  std::int64_t k = 0;
  for (const auto& [name, extents] : c.dims)
    if (name == "k") k = extents[0];
  for (const std::string factor : {"e", "b", "s"})
    for (const int ranks : {1, 2, 3, 7})
      for (int rank = 0; rank < ranks; ++rank) {
        std::vector<at::Tensor> whole(call.in.size()), in(call.in.size()), out;
        std::pair<std::int64_t, std::int64_t> experts = {0, 0};
        for (const auto& [name, extents] : c.dims)
          if (name == "e") experts = factor == "e" ? piece(extents[0], ranks, rank) : std::pair<std::int64_t, std::int64_t>(0, extents[0]);
        Rows rows{{}, experts.first, k};
        for (std::size_t p = 0; p < call.present.size(); ++p) {
          const std::size_t i = call.present[p];
          const auto at = std::find(call.rule.in[p].begin(), call.rule.in[p].end(), factor);
          whole[i] = call.in[i];
          if (at != call.rule.in[p].end()) {
            const auto dim = at - call.rule.in[p].begin();
            const auto [begin, end] = piece(whole[i].size(dim), ranks, rank);
            whole[i] = whole[i].slice(dim, begin, end).contiguous();
          }
          if (domain(i) == Domain::Kind::slot || domain(i) == Domain::Kind::expert) rows.chosen = whole[i];
        }
        std::vector<at::Tensor> meant;
        if (op.name == "route") {
          if (factor == "e") continue;    // its experts are cut by the output alone: below
          meant = call.run_on(whole, 0, Mode::fp64);
          rows.chosen = meant[0];
        } else {
          meant = call.run_on(whole, experts.first, Mode::fp64);
        }
        for (const std::size_t i : call.present) {
          in[i] = whole[i];
          if (domain(i) >= Domain::Kind::routed && domain(i) <= Domain::Kind::expert) in[i] = rows.packed(whole[i], domain(i));
        }
        for (std::size_t o = 0; o < meant.size(); ++o) {
          const bool routed = call.rule.out[o].size() >= 3 && call.rule.out[o][0] == "e" && call.rule.out[o][1] == "b";
          out.push_back(routed ? at::full_like(rows.packed(meant[o], Domain::Kind::routed), 7) : at::full_like(meant[o], 7));
        }
        op.kernel(Args{in, out, call.attrs, experts.first, experts.second});
        for (std::size_t o = 0; o < meant.size(); ++o) {
          at::Tensor got = out[o], wanted = meant[o];
          if (op.name == "route")
            wanted = rows.packed(meant[o], o == 0 ? Domain::Kind::slot : Domain::Kind::expert);
          else if (got.sizes() != wanted.sizes())
            got = rows.unpacked(got);
          EXPECT_TRUE(sheaf::testing::same(got.to(at::kDouble), wanted.to(at::kDouble), Mode::fp64))
              << op.name << ": " << factor << " over " << ranks << ", rank " << rank << ", output " << o;
        }
      }
}

INSTANTIATE_TEST_SUITE_P(Ops, Routing, ::testing::ValuesIn(all_cases()), param_name);

// A rank with some of the experts has their rows; what is free of the room for the most that there can be says so.
TEST(Routing, a_rank_routes_to_its_own_experts) {
  const at::Tensor ids = at::empty({1, 4, 2}, at::kInt);
  const std::vector<std::int32_t> chosen = {5, 2, 2, 0, 1, 2, 7, 3};
  std::copy(chosen.begin(), chosen.end(), ids.data_ptr<std::int32_t>());
  std::vector<at::Tensor> in = {ids, {}}, out = {at::empty({1, 1, 8}, at::kInt), at::empty({1, 1, 8}, at::kInt)};
  op("route").kernel(Args{in, out, {{"experts", Int(8)}}, 2, 6});
  const std::vector<std::int32_t> slot = {1, 2, 5, 7, 0, -1, -1, -1}, expert = {2, 2, 2, 3, 5};
  EXPECT_TRUE(std::equal(slot.begin(), slot.end(), out[0].data_ptr<std::int32_t>()));
  EXPECT_TRUE(std::equal(expert.begin(), expert.end(), out[1].data_ptr<std::int32_t>()));
}
