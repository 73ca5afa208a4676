// Collectives for real: random placements of random tensors, lowered by the planner, each step run by rank threads, against the tensor cut
// anew. Numbers are such that any order of summation is exact, in bf16 too.
#include "runtime/collectives.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <random>

#include "comm/local.h"
#include "comm/rank_threads.h"
#include "mesh/reshard_plan.h"
#include "ops/aten.h"
#include "ops/op_table.h"
#include "runtime/scratch.h"
#include "support/pieces.h"

using namespace sheaf;
using sheaf::testing::piece_of;

namespace {

class Random {
 public:
  explicit Random(std::uint64_t seed) : rng_(seed) {}
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(rng_() % static_cast<std::uint64_t>(n)); }

  Mesh mesh() {
    static const char* const kMeshes[] = {"mesh a0=2",      "mesh a0=3",      "mesh a1=2 a0=2",
                                          "mesh a1=2 a0=3", "mesh a1=3 a0=2", "mesh a2=2 a1=2 a0=2"};
    return parse_mesh(kMeshes[below(6)]);
  }
  Shape shape() {
    Shape out(static_cast<std::size_t>(below(5)));
    for (std::int64_t& extent : out) extent = below(10) == 0 ? 0 : 1 + below(7);
    return out;
  }
  // Every atom cuts a dim, or the flat piece, or is partial, or does nothing.
  Placement placement(const Mesh& mesh, std::size_t ndim, Reduction reduction) {
    Placement p;
    p.dims.resize(ndim);
    std::vector<Atom> atoms;
    for (std::size_t a = 0; a < mesh.atoms.size(); ++a) atoms.push_back(static_cast<Atom>(a));
    std::shuffle(atoms.begin(), atoms.end(), rng_);
    const bool flat = below(3) == 0;
    for (const Atom atom : atoms) switch (below(4)) {
        case 0:
          break;
        case 1:
          p.partial |= 1u << atom;
          break;
        default:
          if (ndim > 0)
            (flat && below(2) ? p.flat : p.dims[static_cast<std::size_t>(below(static_cast<std::int64_t>(ndim)))]).push_back(atom);
      }
    p.reduction = p.partial ? reduction : Reduction::sum;
    return p;
  }
  // Whole numbers of at most 4: sums over 12 ranks are exact in bf16.
  at::Tensor tensor(const Shape& shape, DType dtype) {
    at::Tensor t = at::empty(shape, at::kLong);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<std::int64_t>()[i] = below(9) - 4;
    return t.to(scalar_type(dtype));
  }

 private:
  std::mt19937_64 rng_;
};

// The coordinates of a rank on some atoms as one number.
std::int64_t coordinate(const Mesh& mesh, std::int64_t rank, std::uint32_t atoms) {
  std::int64_t c = 0;
  for (std::size_t a = 0; a < mesh.atoms.size(); ++a)
    if (atoms >> a & 1) c = c * mesh.atoms[a].size + mesh.coordinate(rank, static_cast<Atom>(a));
  return c;
}
at::Tensor reduced(const at::Tensor& a, const at::Tensor& b, Reduction r) {
  return r == Reduction::sum ? a.add(b) : r == Reduction::max ? at::maximum(a, b) : at::minimum(a, b);
}

struct Problem {
  Mesh mesh;
  Type from, to;
  std::vector<at::Tensor> terms;    // by coordinate on the partial atoms; one if there are none
  at::Tensor whole() const {
    at::Tensor out = terms[0];
    for (std::size_t i = 1; i < terms.size(); ++i) out = reduced(out, terms[i], from.placement.reduction);
    return out;
  }
  std::string print() const { return fmt::format("{}: {} -> {}", sheaf::print(mesh), sheaf::print(from, mesh), sheaf::print(to, mesh)); }
};

Problem random_problem(Random& random, DType dtype) {
  Problem p{random.mesh(), {}, {}, {}};
  const Shape shape = random.shape();
  const Reduction reduction =
      std::vector{Reduction::sum, Reduction::sum, Reduction::max, Reduction::min}[static_cast<std::size_t>(random.below(4))];
  p.from = {dtype, shape, random.placement(p.mesh, shape.size(), reduction)};
  p.to = {dtype, shape, random.placement(p.mesh, shape.size(), reduction)};
  if (reduction != Reduction::sum) {    // never made partial, and what stays partial stays what it is
    p.to.placement.partial &= p.from.placement.partial;
    if (p.to.placement.partial == 0) p.to.placement.reduction = Reduction::sum;
  }
  std::int64_t terms = 1;
  for (std::size_t a = 0; a < p.mesh.atoms.size(); ++a)
    if (p.from.placement.partial >> a & 1) terms *= p.mesh.atoms[a].size;
  for (std::int64_t i = 0; i < terms; ++i) p.terms.push_back(random.tensor(shape, dtype));
  return p;
}

// What every rank ends with.
std::vector<at::Tensor> run(const Problem& p, LocalWorld& world) {
  Graph graph;
  graph.mesh = p.mesh;
  const auto steps = plan_reshard(p.from.placement, p.to.placement, p.from.shape, size_bytes(p.from.dtype), p.mesh);
  Value v = graph.declare(ValueKind::input, "x", p.from);
  std::vector<Node> nodes;
  for (const ReshardStep& step : steps) {
    nodes.push_back(graph.make_node(find_op(all_ops(), name(step.move)), {v}));
    v = nodes.back().out[0];
    graph[v].type.placement = step.to;
  }
  std::vector<at::Tensor> out(static_cast<std::size_t>(world.size()));
  const auto outcomes = test::run_ranks(world.size(), [&](int rank) {
    const c10::InferenceMode no_tape;
    at::Tensor piece =
        piece_of(p.terms[static_cast<std::size_t>(coordinate(p.mesh, rank, p.from.placement.partial))], p.from.placement, p.mesh, rank);
    for (const Node& node : nodes) {
      const Type& to = graph.type(node.out[0]);
      at::Tensor next = at::full(local_shape(to.shape, to.placement, p.mesh, rank), 77, piece.options());
      const Collective collective(graph, node, world.at(rank), std::string(node.op->name));
      std::vector<char> scratch(static_cast<std::size_t>(collective.scratch_bytes()) + 1, char(0x7f));
      std::vector<at::Tensor> in = {piece}, to_pieces = {next};
      collective.run(in, to_pieces, scratch.data());
      piece = next;
    }
    out[static_cast<std::size_t>(rank)] = piece;
  });
  for (const auto& outcome : outcomes) EXPECT_EQ(outcome.text, "") << p.print();
  return out;
}

class Collectives : public ::testing::TestWithParam<DType> {};

}    // namespace

TEST_P(Collectives, any_placement_from_any_other) {
  install_scratch_allocators();
  std::map<std::int64_t, LocalWorld> worlds;
  int moved = 0;
  for (std::uint64_t seed = 0; seed < 400 && !HasFailure(); ++seed) {
    Random random(seed);
    const Problem p = random_problem(random, GetParam());
    LocalWorld& world = worlds.try_emplace(p.mesh.num_ranks(), static_cast<int>(p.mesh.num_ranks()), 60.0).first->second;
    const std::vector<at::Tensor> out = run(p, world);
    if (HasFailure()) break;
    const at::Tensor whole = p.whole();
    // Partial at the end: what ranks that differ in those atoms only hold makes the piece of the whole.
    for (std::int64_t rank = 0; rank < p.mesh.num_ranks(); ++rank) {
      const Placement& to = p.to.placement;
      at::Tensor piece = at::Tensor();
      for (std::int64_t peer = 0; peer < p.mesh.num_ranks(); ++peer) {
        bool same = true;
        for (std::size_t a = 0; a < p.mesh.atoms.size(); ++a)
          same &= (to.partial >> a & 1) || p.mesh.coordinate(rank, static_cast<Atom>(a)) == p.mesh.coordinate(peer, static_cast<Atom>(a));
        if (!same) continue;
        const at::Tensor& theirs = out[static_cast<std::size_t>(peer)];
        piece = piece.defined() ? reduced(piece, theirs, to.reduction) : theirs;
      }
      ASSERT_TRUE(piece.equal(piece_of(whole, to, p.mesh, rank))) << "seed " << seed << ", rank " << rank << ", " << p.print();
    }
    moved += !same(p.from.placement, p.to.placement);
  }
  EXPECT_GT(moved, 300);
}

INSTANTIATE_TEST_SUITE_P(Runtime, Collectives, ::testing::Values(DType::i64, DType::fp32, DType::bf16),
                         [](const auto& info) { return std::string(name(info.param)); });

// Real numbers, whose sum depends on the order: the terms are added in the order of the group, in fp32, and rounded once.
TEST(Collectives, sums_are_made_in_the_order_of_the_group_and_rounded_once) {
  install_scratch_allocators();
  LocalWorld world(4, 60.0);
  for (const DType dtype : {DType::fp32, DType::bf16})
    for (const Shape& shape : {Shape{5, 3}, Shape{40, 300}})    // small ones go to everyone at once, large ones in two steps
      for (const char* target : {"[.|.]", "[a1.a0|.]"}) {
        Problem p{parse_mesh("mesh a1=2 a0=2"), {dtype, shape, {}}, {dtype, shape, {}}, {}};
        p.from.placement = parse_placement("[.|.] partial(a1.a0)", p.mesh, 2);
        p.to.placement = parse_placement(target, p.mesh, 2);
        std::mt19937 rng(1);
        std::normal_distribution<float> normal;
        for (int i = 0; i < 4; ++i) {
          at::Tensor t = at::empty(shape, at::kFloat);
          for (std::int64_t j = 0; j < t.numel(); ++j) t.data_ptr<float>()[j] = normal(rng);
          p.terms.push_back(t.to(scalar_type(dtype)));
        }
        at::Tensor sum = p.terms[0].to(at::kFloat);
        for (int i = 1; i < 4; ++i) sum = sum.add(p.terms[static_cast<std::size_t>(i)].to(at::kFloat));
        const std::vector<at::Tensor> out = run(p, world);
        for (std::int64_t rank = 0; rank < 4; ++rank)
          EXPECT_TRUE(out[static_cast<std::size_t>(rank)].equal(piece_of(sum.to(scalar_type(dtype)), p.to.placement, p.mesh, rank)))
              << p.print() << ", rank " << rank;
      }
}
