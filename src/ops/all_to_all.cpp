#include "ops/moves.h"

namespace sheaf {

OpDef all_to_all() { return move_op("x, cut along another dim: every rank of a group sends each other one its part"); }

}    // namespace sheaf
