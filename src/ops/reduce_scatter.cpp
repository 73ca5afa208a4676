#include "ops/moves.h"

namespace sheaf {

OpDef reduce_scatter() { return move_op("the sum over a group of what its ranks hold of x, of which each gets its piece"); }

}    // namespace sheaf
