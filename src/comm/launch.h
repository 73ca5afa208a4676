#pragma once
// Who started this process, and as which rank of how many: from the environment of mpirun, srun or torchrun.
#include <functional>
#include <string>

namespace sheaf {

struct Launch {
  enum class By { none, mpirun, srun, torchrun };

  By by = By::none;
  int rank = 0, size = 1;
  int local_rank = 0;    // among those of the same machine; -1 if the launcher does not say
  // torchrun only: where rank 0 is reached, who listens there, and how often the job was restarted.
  std::string master_addr;
  int master_port = 0;
  bool agent_has_store = false;    // torchrun's agent hosts a store there already; else rank 0 does
  int attempt = 0;

  bool operator==(const Launch&) const = default;
};

// The value of a variable of the environment, nullptr if it is not set: as std::getenv.
using Environment = std::function<const char*(const char*)>;

// UserError names the variable that is missing, no number, or does not fit to another one.
//   OpenMPI   OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK           MPICH     PMI_RANK, PMI_SIZE, MPI_LOCALRANKID
//   Slurm     SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, inside a step of more than one task
//   torchrun  RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_USE_AGENT_STORE, TORCHELASTIC_RESTART_COUNT
// in this order: mpirun inside a Slurm job starts its own helpers by srun.
Launch detect_launch(const Environment& environment);
Launch detect_launch();

}    // namespace sheaf
