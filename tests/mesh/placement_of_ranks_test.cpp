// What every rank holds: properties over random placements on meshes of uneven atoms.
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "mesh/boxes.h"
#include "mesh/placement.h"

using namespace sheaf;

namespace {

const Mesh kMesh = parse_mesh("mesh a3=2 a2=3 a1=2 a0=2    axes dp=a3.a2 sp=a1 tp=a0");

Placement random_placement(std::mt19937& rng, std::size_t ndim) {
  Placement p;
  p.dims.resize(ndim);
  std::vector<Atom> atoms = {0, 1, 2, 3};
  std::shuffle(atoms.begin(), atoms.end(), rng);
  for (const Atom atom : atoms) switch (rng() % 4) {
      case 0:
        p.flat.push_back(atom);
        break;
      case 1:
        p.partial |= 1u << atom;
        break;
      case 2:
        if (ndim > 0) p.dims[rng() % ndim].push_back(atom);
        break;
      default:
        break;
    }
  if (p.partial) p.reduction = static_cast<Reduction>(rng() % 3);
  return p;
}
Shape random_shape(std::mt19937& rng) {
  Shape shape(rng() % 4);
  for (std::int64_t& extent : shape) extent = static_cast<std::int64_t>(rng() % 12);
  return shape;
}

}    // namespace

TEST(Placement, the_largest_piece_is_as_large_as_any_and_no_larger_than_needed) {
  std::mt19937 rng(1);
  for (int i = 0; i < 3000; ++i) {
    const Shape shape = random_shape(rng);
    const Placement p = random_placement(rng, shape.size());
    const Shape largest = largest_local_shape(shape, p, kMesh);
    Shape most(largest.size(), 0);
    for (std::int64_t rank = 0; rank < kMesh.num_ranks(); ++rank) {
      const Shape local = local_shape(shape, p, kMesh, rank);
      ASSERT_EQ(local.size(), largest.size());
      for (std::size_t d = 0; d < local.size(); ++d) most[d] = std::max(most[d], local[d]);
    }
    for (std::size_t d = 0; d < most.size(); ++d) {
      ASSERT_LE(most[d], largest[d]) << print(p, kMesh, shape.size());
      ASSERT_TRUE(!p.flat.empty() || most[d] == largest[d]) << print(p, kMesh, shape.size());
    }
  }
}

TEST(Placement, the_pieces_of_ranks_that_differ_tile_the_tensor) {
  std::mt19937 rng(2);
  for (int i = 0; i < 1000; ++i) {
    const Shape shape = random_shape(rng);
    const Placement p = random_placement(rng, shape.size());
    std::vector<Box> boxes;
    std::int64_t total = 0;
    for (std::int64_t rank = 0; rank < kMesh.num_ranks(); ++rank) {
      bool first = true;    // of the ranks that hold the same
      for (std::size_t a = 0; a < kMesh.atoms.size(); ++a) first &= (p.cut() >> a & 1) || kMesh.coordinate(rank, static_cast<Atom>(a)) == 0;
      if (!first) continue;
      const auto [begin, end] = local_flat(shape, p, kMesh, rank);
      for (Box& box : boxes_of_flat(local_box(shape, p, kMesh, rank), begin, end)) {
        total += num_elements(box);
        boxes.push_back(std::move(box));
      }
    }
    ASSERT_EQ(total, num_elements(shape)) << print(p, kMesh, shape.size());
    ASSERT_FALSE(find_overlap(boxes)) << print(p, kMesh, shape.size());
  }
}

// Removing minor atoms gives the union of the pieces: a gather over the end of a suffix is contiguous.
TEST(Placement, flat_pieces_nest_and_begin_at_granules) {
  for (std::int64_t n : {0, 1, 15, 16, 17, 63, 64, 100, 255, 1000, 4097})
    for (std::int64_t major = 1; major <= 6; ++major)
      for (std::int64_t minor = 1; minor <= 5; ++minor)
        for (std::int64_t c = 0; c < major; ++c) {
          const auto [begin, end] = flat_piece(n, major, c);
          EXPECT_EQ(begin, flat_piece(n, major * minor, c * minor).first);
          EXPECT_EQ(end, flat_piece(n, major * minor, c * minor + minor - 1).second);
          EXPECT_TRUE(begin == n || begin % kFlatGranule == 0);
          EXPECT_EQ(end, c + 1 < major ? flat_piece(n, major, c + 1).first : n);
        }
  // The same through placements: +a3.a2.a1 without its last atom.
  const Placement fine = parse_placement("[a0|.] +a3.a2.a1", kMesh, 2), coarse = parse_placement("[a0|.] +a3.a2", kMesh, 2);
  for (std::int64_t rank = 0; rank < kMesh.num_ranks(); ++rank) {
    const auto outer = local_flat({37, 11}, coarse, kMesh, rank), inner = local_flat({37, 11}, fine, kMesh, rank);
    EXPECT_TRUE(outer.first <= inner.first && inner.second <= outer.second);
    EXPECT_EQ(kMesh.coordinate(rank, 2) == 0 ? outer.first : outer.second, kMesh.coordinate(rank, 2) == 0 ? inner.first : inner.second);
  }
}

TEST(Placement, any_placement_survives_its_text) {
  std::mt19937 rng(3);
  for (int i = 0; i < 2000; ++i) {
    const std::size_t ndim = rng() % 4;
    const Placement p = random_placement(rng, ndim);
    const std::string text = print(p, kMesh, ndim);
    const Placement back = parse_placement(text, kMesh, ndim);
    ASSERT_TRUE(same(back, p)) << text;
    ASSERT_EQ(print(back, kMesh, ndim), text);
  }
  for (const char* text : {"[.|.] +a3.a2", "[a0|.] +a1 partial(a3)", "[.|a0] +a2.a1 partial(max a3)"})
    EXPECT_EQ(print(parse_placement(text, kMesh, 2), kMesh, 2), text);
  EXPECT_THROW(parse_placement("[.|.] +a9", kMesh, 2), UserError);
  EXPECT_THROW(parse_placement("[.|.] a0", kMesh, 2), UserError);
  EXPECT_THROW(parse_placement("[.|.] +a0 sum", kMesh, 2), UserError);
}

TEST(Placement, axes_are_named_whole_or_in_part) {
  const auto of = [](const char* text) { return axes_of(kMesh, parse_placement(text, kMesh, 1).dims.at(0)); };
  EXPECT_EQ(of("[a0]"), "over tp");
  EXPECT_EQ(of("[a3.a2]"), "over dp");
  EXPECT_EQ(of("[a2.a3]"), "over dp");
  EXPECT_EQ(of("[a3]"), "over dp(a3)");
  EXPECT_EQ(of("[a1.a2.a0]"), "over dp(a2).sp.tp");
  EXPECT_EQ(axes_of(parse_mesh("mesh a1=2 a0=2    axes dp=a1"), {0, 1}), "over dp.a0");
}
