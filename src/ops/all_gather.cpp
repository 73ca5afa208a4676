#include "ops/moves.h"

namespace sheaf {

OpDef all_gather() { return move_op("x with the pieces of the ranks of a group put together"); }

}    // namespace sheaf
