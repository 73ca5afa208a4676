#pragma once
// Where the time of a timed step went.
#include <cstdint>
#include <string>
#include <vector>

#include "engine/call_work.h"
#include "runtime/executor.h"
#include "runtime/peak_rate.h"

namespace sheaf {

class Profile {
 public:
  // Of the last step of `executor`, whose calls were timed; a floor is the longer of a call's flops and bytes at these rates.
  Profile(const Executor& executor, const DeviceRates& rates);

  // Tables: by op and kernel; by part of the model, equal layers together; the kinds of calls (one op, kernel and types) that are furthest
  // above their floor.
  std::string text() const;

  // A Chrome trace (JSON, the format of chrome://tracing and Perfetto), times in microseconds from the start of the step: a thread per
  // stream with a complete event ("ph": "X") per call, above them one with an event per segment and micro-batch, and a counter of the bytes
  // that live in the arena.
  std::string trace(std::int64_t step) const;

 private:
  struct Call {
    CallTime time;
    const Node* node;
    std::string part;
    CallWork work;
    double floor;    // seconds
  };
  std::string by_op() const;
  std::string by_part() const;
  std::string above_floor() const;

  const Executor& executor_;
  DeviceRates rates_;
  std::vector<Call> calls_;
  double total_ = 0, beside_ = 0, waited_ = 0;    // seconds: of calls on the main stream, of those beside it, of waiting for these
};

// The same for a person: writes OUTPUT/profile_step_N.json, returns the tables and where it is.
std::string write_profile(const Executor& executor, const DeviceRates& rates, const std::string& output, std::int64_t step);

}    // namespace sheaf
