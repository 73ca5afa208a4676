#include "ops/moves.h"

namespace sheaf {

OpDef all_reduce() { return move_op("the sum (maximum, minimum) over a group of what its ranks hold of x"); }

}    // namespace sheaf
