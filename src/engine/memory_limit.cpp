#include "engine/memory_limit.h"

#include "base/error.h"
#include "base/text.h"
#include "engine/rank_memory.h"

namespace sheaf {
namespace {

// The further in the order, the less memory and the more time.
class Fitting {
 public:
  Fitting(const RunConfig& config, const Graph& model, DeviceKind device, int gpu, const Options& options)
      : config_(config), model_(model), device_(device), gpu_(gpu), options_(options) {
    for (const Node& node : model.nodes(Segment::first)) blocks_ += node.note == "residual";
  }

  // Sets the options; what was chosen, for people.
  std::string fit(Options& options) {
    const double limit = *config_.run.memory_limit * kGiB;
    std::int64_t low = 0, high = 2 * blocks_;    // the first that fits is among [low, high]
    double bytes = planned(0);                   // of `high`
    if (bytes <= limit) {
      high = 0;
    } else if (bytes = planned(high); bytes > limit) {
      user_error(
          "run.memory_limit: found {}, but a rank plans for {} even where all is computed again; allow more, or take a smaller "
          "micro-batch, shorter rows, more ranks or a higher ZeRO stage",
          human_bytes(limit), human_bytes(bytes));
    }
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (const double found = planned(middle); found <= limit)
        high = middle, bytes = found;
      else
        low = middle + 1;
    }
    set(options, high);
    const std::string what = high == 0 ? "nothing is computed again"
                                       : fmt::format("recomputation {} in {} of {} blocks{}", options.recompute, options.recompute_blocks,
                                                     blocks_, options.recompute == "block" ? ", selective in the others" : "");
    return fmt::format("run.memory_limit {}: {}, {} planned", human_bytes(limit), what, human_bytes(bytes));
  }

 private:
  static constexpr double kGiB = 1 << 30;

  void set(Options& options, std::int64_t place) const {
    options.recompute = place == 0 ? "none" : place <= blocks_ ? "selective" : "block";
    options.recompute_blocks = place <= blocks_ ? place : place - blocks_;
  }
  double planned(std::int64_t place) {
    Options options = options_;
    set(options, place);
    const Graph graph = RunPasses()(model_, training_passes(), options);
    return static_cast<double>(heaviest_rank(graph, config_, device_, gpu_, known_).use.total());
  }

  const RunConfig& config_;
  const Graph& model_;
  DeviceKind device_;
  int gpu_;
  const Options& options_;
  std::int64_t blocks_ = 0;
  KnownScratch known_;
};

}    // namespace

std::string fit_memory_limit(const RunConfig& config, const Graph& model, DeviceKind device, int gpu, Options& options) {
  if (!config.run.recompute.empty())
    user_error("run.memory_limit: chooses what is computed again, and run.recompute says {}; give one of them",
               quote(config.run.recompute));
  return Fitting(config, model, device, gpu, options).fit(options);
}

}    // namespace sheaf
