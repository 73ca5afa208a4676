#include "mesh/refine.h"

#include <gtest/gtest.h>

#include "base/error.h"

using namespace sheaf;

TEST(Refine, the_atoms_are_the_intervals_between_the_cuts_of_both) {
  const Refinement r = refine({{"dp", 4}, {"sp", 2}, {"tp", 2}}, {{"edp", 2}, {"ep", 8}, {"etp", 1}});
  EXPECT_EQ(print(r.mesh), "mesh a3=2 a2=2 a1=2 a0=2    axes dp=a3.a2 sp=a1 tp=a0 edp=a3 ep=a2.a1.a0 etp=.");
  EXPECT_FALSE(r.reordered);
}
TEST(Refine, without_experts_an_axis_is_an_atom) {
  EXPECT_EQ(print(refine({{"dp", 3}, {"sp", 1}, {"tp", 4}}, {{"edp", 12}}).mesh), "mesh a1=3 a0=4    axes dp=a1 sp=. tp=a0 edp=a1.a0");
}
TEST(Refine, the_kv_cut_splits_an_atom_where_it_nests) {
  EXPECT_EQ(print(refine({{"dp", 1}, {"sp", 1}, {"tp", 4}}, {{"edp", 4}}, {2}).mesh),
            "mesh a1=2 a0=2    axes dp=. sp=. tp=a1.a0 edp=a1.a0");
  EXPECT_EQ(print(refine({{"dp", 1}, {"sp", 1}, {"tp", 4}}, {{"edp", 4}}, {3}).mesh), "mesh a0=4    axes dp=. sp=. tp=a0 edp=a0");
}
TEST(Refine, another_order_of_the_expert_axes_is_taken_where_the_given_one_has_none) {
  // dense cuts 4, 12; experts 2 x 6 as given cut at 6: 4 does not divide 6. The other order cuts at 2.
  const Refinement r = refine({{"dp", 3}, {"tp", 4}}, {{"edp", 2}, {"ep", 6}});
  EXPECT_TRUE(r.reordered);
  EXPECT_EQ(print(r.mesh), "mesh a2=3 a1=2 a0=2    axes dp=a2 tp=a1.a0 ep=a2.a1 edp=a0");
}
TEST(Refine, none_at_all_is_an_error_with_what_would_fit) {
  try {
    refine({{"dp", 3}, {"tp", 4}}, {{"edp", 2}, {"ep", 3}, {"etp", 2}});
    // 2 x 3 x 2 refines in some order; a case that does not:
    refine({{"dp", 9}, {"tp", 4}}, {{"edp", 6}, {"ep", 6}});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("have no common refinement"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("ep of"), std::string::npos);
  }
}
TEST(Refine, every_rank_has_the_coordinates_of_its_number) {
  const Mesh mesh = refine({{"dp", 2}, {"sp", 3}, {"tp", 2}}, {{"edp", 12}}).mesh;
  for (std::int64_t rank = 0; rank < 12; ++rank) {
    std::int64_t back = 0;
    for (std::size_t a = 0; a < mesh.atoms.size(); ++a) back = back * mesh.atoms[a].size + mesh.coordinate(rank, static_cast<Atom>(a));
    EXPECT_EQ(back, rank);
  }
}
// Wishes: where heads go from kv heads to query heads, where a shorter suffix ends. Each is granted where it nests with what is there.
TEST(Refine, wishes_cut_where_they_nest) {
  const auto mesh = [](const std::vector<std::int64_t>& wishes) {
    return print(refine({{"dp", 8}, {"sp", 1}, {"tp", 4}}, {}, wishes).mesh);
  };
  EXPECT_EQ(mesh({}), "mesh a1=8 a0=4    axes dp=a1 sp=. tp=a0");
  EXPECT_EQ(mesh({2}), "mesh a2=8 a1=2 a0=2    axes dp=a2 sp=. tp=a1.a0");
  EXPECT_EQ(mesh({8}), "mesh a2=4 a1=2 a0=4    axes dp=a2.a1 sp=. tp=a0");    // tp times a shard group of 2
  EXPECT_EQ(mesh({2, 8, 16}), "mesh a4=2 a3=2 a2=2 a1=2 a0=2    axes dp=a4.a3.a2 sp=. tp=a1.a0");
  EXPECT_EQ(mesh({3, 64, 5}), mesh({}));      // none nests, or is more than the ranks
  EXPECT_EQ(mesh({1, 4, 32}), mesh({}));      // cuts that are there already
  EXPECT_EQ(mesh({16, 8}), mesh({8, 16}));    // in any order
  // The first of two that do not nest with each other is taken.
  EXPECT_EQ(print(refine({{"dp", 12}}, {}, {2, 3}).mesh), "mesh a1=6 a0=2    axes dp=a1.a0");
  EXPECT_EQ(print(refine({{"dp", 12}}, {}, {3, 2}).mesh), "mesh a1=4 a0=3    axes dp=a1.a0");
}
