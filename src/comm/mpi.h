#pragma once
// Transport `mpi`: CPU ranks in processes that mpirun or srun started. It lies in a plugin, sheaf_mpi.so beside the program, which is
// loaded here: the program itself starts where MPI is not installed.
#include <memory>

#include "comm/transport.h"

namespace sheaf {

// Initialises MPI; once per process. UserError if the plugin or MPI's library is missing. timeout_s: how long one call may wait, in
// seconds.
//
// After abort(), or a call that failed, the process ends all others when it exits: the caller prints its message, then exits. Exit codes 0
// and 130 after no failure finalize MPI.
std::unique_ptr<Transport> make_mpi_transport(double timeout_s);

// What the plugin exports, as sheaf_mpi_transport. The caller owns the result.
using MpiFactory = Transport*(double timeout_s);

}    // namespace sheaf
