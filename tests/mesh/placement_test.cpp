#include "mesh/placement.h"

#include <gtest/gtest.h>

#include "base/error.h"

using namespace sheaf;

static const Mesh kMesh = parse_mesh("mesh a2=2 a1=3 a0=2    axes dp=a2 sp=a1 tp=a0");

TEST(Placement, text_round_trips) {
  EXPECT_EQ(print(parse_mesh(print(kMesh))), print(kMesh));
  for (const char* text : {"[a2|a1.a0|.]", "[.|.|a0] partial(a2.a1)", "[.|.|.] partial(max a1)"})
    EXPECT_EQ(print(parse_placement(text, kMesh, 3), kMesh, 3), text);
}
TEST(Placement, errors_name_the_atom_and_what_there_is) {
  try {
    parse_placement("[a7|.]", kMesh, 2);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "no atom 'a7' in the mesh; it has a2, a1, a0");
  }
  EXPECT_THROW(parse_placement("[.|.]", kMesh, 3), UserError);
}
// Removing an atom from the minor end gives the union of the pieces: gathers over a suffix are contiguous, for any extent.
TEST(Placement, floor_splitting_nests) {
  for (std::int64_t n = 0; n <= 40; ++n)
    for (std::int64_t major = 1; major <= 5; ++major)
      for (std::int64_t minor = 1; minor <= 5; ++minor)
        for (std::int64_t c = 0; c < major; ++c) {
          EXPECT_EQ(piece(n, major, c).first, piece(n, major * minor, c * minor).first);
          EXPECT_EQ(piece(n, major, c).second, piece(n, major * minor, c * minor + minor - 1).second);
        }
}
TEST(Placement, the_pieces_of_all_ranks_tile_the_tensor) {
  const Shape shape = {5, 7, 3};
  const Placement placement = parse_placement("[a2|a0.a1|.]", kMesh, 3);
  std::int64_t total = 0;
  for (std::int64_t rank = 0; rank < kMesh.num_ranks(); ++rank) total += num_elements(local_shape(shape, placement, kMesh, rank));
  EXPECT_EQ(total, num_elements(shape));
}
