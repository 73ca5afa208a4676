#include "ops/moves.h"

namespace sheaf {

OpDef to_partial() { return move_op("x on coordinate 0 of a group, zeros on the others: the sum over it is x; nothing is sent"); }

}    // namespace sheaf
