#include "comm/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

using namespace sheaf;

namespace {

using Variables = std::map<std::string, std::string>;

Launch detect(const Variables& variables) {
  return detect_launch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string error_of(const Variables& variables) {
  try {
    detect(variables);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

const Variables kTorchrun = {{"RANK", "3"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}, {"MASTER_ADDR", "node0"}, {"MASTER_PORT", "29500"}};

Variables with(Variables variables, const std::string& name, const std::string& value) {
  variables[name] = value;
  return variables;
}
Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

}    // namespace

TEST(Launch, nothing_set_is_one_rank) { EXPECT_EQ(detect({}), Launch{}); }

TEST(Launch, open_mpi) {
  const Launch l = detect({{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}});
  EXPECT_EQ(l, (Launch{.by = Launch::By::mpirun, .rank = 2, .size = 4, .local_rank = 0}));
}

TEST(Launch, mpich) {
  EXPECT_EQ(detect({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), (Launch{.by = Launch::By::mpirun, .rank = 1, .size = 2, .local_rank = -1}));
  EXPECT_EQ(detect({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}}).local_rank, 1);
}

TEST(Launch, slurm_inside_a_step_of_several_tasks_only) {
  const Variables job = {{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "1"}};
  EXPECT_EQ(detect(job).by, Launch::By::none);
  const Variables step = with(job, "SLURM_STEP_ID", "0");
  EXPECT_EQ(detect(step), (Launch{.by = Launch::By::srun, .rank = 5, .size = 8, .local_rank = 1}));
  EXPECT_EQ(detect(with(with(step, "SLURM_NTASKS", "1"), "SLURM_PROCID", "0")).by, Launch::By::none);
  EXPECT_EQ(detect(with(step, "SLURM_STEP_NUM_TASKS", "1")).by, Launch::By::none);    // the shell of an interactive allocation
}

TEST(Launch, torchrun) {
  EXPECT_EQ(detect(kTorchrun),
            (Launch{.by = Launch::By::torchrun, .rank = 3, .size = 4, .local_rank = 1, .master_addr = "node0", .master_port = 29500}));
  const Launch l = detect(with(with(kTorchrun, "TORCHELASTIC_USE_AGENT_STORE", "True"), "TORCHELASTIC_RESTART_COUNT", "2"));
  EXPECT_TRUE(l.agent_has_store);
  EXPECT_EQ(l.attempt, 2);
}

TEST(Launch, mpirun_in_a_slurm_job_is_mpirun) {
  EXPECT_EQ(detect({{"OMPI_COMM_WORLD_RANK", "0"},
                    {"OMPI_COMM_WORLD_SIZE", "2"},
                    {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                    {"SLURM_STEP_ID", "1"},
                    {"SLURM_PROCID", "1"},
                    {"SLURM_NTASKS", "4"},
                    {"SLURM_LOCALID", "0"}})
                .by,
            Launch::By::mpirun);
}

TEST(Launch, errors_name_the_variable_and_what_it_holds) {
  EXPECT_EQ(error_of(with(kTorchrun, "RANK", "x3")),
            "RANK is 'x3': wanted a whole number of at least 0\nit comes from torchrun; start the ranks with torchrun alone, or unset it");
  EXPECT_TRUE(error_of(with(kTorchrun, "RANK", "3 ")).starts_with("RANK is '3 '"));
  EXPECT_TRUE(error_of(with(kTorchrun, "RANK", "")).starts_with("RANK is not set"));
  EXPECT_TRUE(error_of(with(kTorchrun, "RANK", "-1")).starts_with("RANK is '-1'"));
  EXPECT_TRUE(error_of(with(kTorchrun, "WORLD_SIZE", "99999999999")).starts_with("WORLD_SIZE is '99999999999'"));
  EXPECT_TRUE(error_of(with(kTorchrun, "WORLD_SIZE", "0")).starts_with("WORLD_SIZE is '0'"));
  EXPECT_TRUE(error_of(with(kTorchrun, "RANK", "4")).starts_with("RANK is 4 and WORLD_SIZE is 4: ranks count from 0"));
  EXPECT_TRUE(error_of(with(kTorchrun, "LOCAL_RANK", "7")).starts_with("LOCAL_RANK is 7 and WORLD_SIZE is 4"));
  EXPECT_TRUE(
      error_of(with(kTorchrun, "MASTER_PORT", "70000")).starts_with("MASTER_PORT is '70000': wanted a whole number from 1 to 65535"));
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"})
    EXPECT_TRUE(error_of(without(kTorchrun, name)).starts_with(std::string(name) + " is not set")) << name;
  EXPECT_TRUE(error_of({{"OMPI_COMM_WORLD_RANK", "0"}}).starts_with("OMPI_COMM_WORLD_SIZE is not set"));
  EXPECT_TRUE(error_of({{"PMI_SIZE", "2"}}).starts_with("PMI_RANK is not set"));
}
