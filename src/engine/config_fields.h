#pragma once
// Which key of the run file is which member of RunConfig. config.h declares the way back, `resolved`.
#include "engine/config.h"
#include "engine/settings.h"

namespace sheaf {

// Every member that a key has, as checked settings say. What follows from several keys together is left to the caller.
void read_fields(const Settings& settings, RunConfig& config);

}    // namespace sheaf
