#include "runtime/side_stream.h"

namespace sheaf {

#ifndef SHEAF_CUDA
std::unique_ptr<SideStream> make_side_stream(int) { return nullptr; }
#endif

}    // namespace sheaf
