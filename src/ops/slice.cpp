#include "ops/moves.h"

namespace sheaf {

OpDef slice() { return move_op("the rank's piece of what it holds of x; nothing is sent"); }

}    // namespace sheaf
