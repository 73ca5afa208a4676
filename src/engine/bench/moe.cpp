#include "engine/bench/moe.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "data/megatron_writer.h"
#include "engine/bench/bench_progress.h"
#include "engine/bench/device_text.h"
#include "engine/bench/quiet_run.h"
#include "engine/plan.h"
#include "runtime/device.h"

namespace sheaf {
namespace {

// Uniform, so that every expert gets about as many; enough for two steps, after which they come again.
std::string write_tokens(const std::string& folder, std::int64_t vocab, std::int64_t count) {
  const std::string prefix = fmt::format("{}/vocab-{}", folder, vocab);
  MegatronWriter writer(prefix, vocab);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(uniform(1, hash_text("bench"), i) * static_cast<double>(vocab));
  writer.append(ids);
  writer.end_document();
  writer.finish();
  return prefix + ".bin";
}

double median(std::vector<double> numbers) {
  std::sort(numbers.begin(), numbers.end());
  const std::size_t n = numbers.size();
  return n == 0 ? 0 : (numbers[(n - 1) / 2] + numbers[n / 2]) / 2;
}

class Moe {
 public:
  Moe(const MoeOptions& options, const std::atomic<bool>& stop)
      : options_(options), stop_(stop), kind_(chosen_device(options.device)), data_(options.output + "/.tokens"), progress_(all_work()) {
    result_.options = options, result_.device = device_text(options.device), result_.devices = num_devices(kind_);
    // The same for every number of ranks, so that a rank is always the same.
    if (kind_ == DeviceKind::cpu) result_.threads = static_cast<int>(result_.devices / most_ranks_here());
  }

  MoeResult go(const std::function<void(const MoeResult&)>& each) {
    for (const ModelSize& size : options_.sizes) {
      if (stop_) break;
      MoeTable& table = result_.tables.emplace_back(MoeTable{.size = size, .active_parameters = matmul_parameters(size.model)});
      const std::string data = write_tokens(data_.path(), size.model.vocab, 2 * most_ranks_here() * options_.rows * options_.seq_len + 1);
      for (const std::int64_t ranks : options_.ranks)
        for (const MeshWords& words : meshes_on(ranks))
          if (!stop_) table.rows.push_back(row(table, words, ranks, data));
      for (MoeRow& row : table.rows) rate(row, table);
      progress_.clear();
      each(result_);
    }
    result_.interrupted = stop_;
    return result_;
  }

 private:
  std::int64_t most_ranks_here() const {
    std::int64_t most = 1;
    for (const std::int64_t ranks : options_.ranks)
      if (ranks <= num_devices(kind_)) most = std::max(most, ranks);
    return most;
  }
  // On one rank all meshes are one.
  std::vector<MeshWords> meshes_on(std::int64_t ranks) const {
    return ranks == 1 ? std::vector<MeshWords>{{.text = "one rank"}} : options_.meshes;
  }
  double work_of(const ModelSize& size) const { return model_flops_per_token(size.model, options_.seq_len); }
  double all_work() const {
    double sum = 0;
    for (const ModelSize& size : options_.sizes)
      for (const std::int64_t ranks : options_.ranks)
        if (ranks <= num_devices(kind_)) sum += work_of(size) * static_cast<double>(meshes_on(ranks).size());
    return std::max(sum, 1.0);
  }

  // A rank has the same number of rows on every mesh: those of all ranks that share them are computed together.
  Json run_file(const MoeTable& table, const BenchMesh& mesh, const std::string& words, const std::string& data) const {
    Json run = {
        {"model", {{"config", table.size.config}}},
        {"data", {{"train", data}, {"seq_len", options_.seq_len}}},
        {"run",
         {{"steps", kWarmupSteps + options_.steps},
          {"seed", 1},
          {"device", std::string(sheaf::name(kind_))},
          {"output", fmt::format("{}/runs/{}/{}_{}", options_.output, folder_name(table.size.name), mesh.ranks, folder_name(words))}}},
        {"train_micro_batch_size_per_gpu", options_.rows * mesh.sp * mesh.tp},
        {"bf16", {{"enabled", options_.bf16}}},
        {"optimizer", {{"type", "AdamW"}, {"params", {{"lr", 1e-4}}}}}};
    set_mesh(run, mesh);
    return run;
  }
  static std::string folder_name(std::string text) {
    for (char& c : text)
      if (c == '/' || c == '+' || c == ' ') c = '_';
    return text;
  }

  MoeRow row(MoeTable& table, const MeshWords& words, std::int64_t ranks, const std::string& data) {
    MoeRow out{.words = words.text, .mesh = {.ranks = ranks}};
    progress_.begin(fmt::format("{}, {} rank{}, {}", table.size.name, ranks, ranks == 1 ? "" : "s", words.text),
                    ranks <= result_.devices ? work_of(table.size) : 0);
    try {
      out.mesh = mesh_of(words, ranks, table.size.model.moe->experts);
      const Json run = run_file(table, out.mesh, words.text, data);
      out.tokens = ranks * options_.rows * options_.seq_len;
      progress_.say("planning");
      plan(out, table, run);
      if (out.note = why_not_here(out); out.note.empty()) measure(out, run);
    } catch (const UserError& error) {
      const std::string what = error.what();
      out.kind = MoeRow::Kind::impossible, out.note = what.substr(0, what.find('\n'));
    } catch (const std::exception& error) {
      const std::string what = error.what();
      out.kind = MoeRow::Kind::failed, out.note = "internal error: " + what.substr(0, what.find('\n'));
    }
    progress_.end();
    return out;
  }

  void plan(MoeRow& row, MoeTable& table, Json run) const {
    run["run"].erase("nproc");    // which is for threads, and has a bound
    const RunPlan plan = plan_run(parse_config(run.dump(), "the run", {}, row.mesh.ranks).config);
    row.planned = plan.memory, table.parameters = plan.num_parameters;
    for (const TrafficRow& traffic : plan.communication) row.sent_bytes += traffic.bytes;
  }

  std::string why_not_here(const MoeRow& row) const {
    if (row.mesh.ranks > result_.devices)
      return fmt::format("{} here", result_.devices == 1
                                        ? "1 device"
                                        : fmt::format("{} {}", result_.devices, kind_ == DeviceKind::cpu ? "cores" : "GPUs"));
    const std::int64_t here = kind_ == DeviceKind::cpu ? row.planned.total() * row.mesh.ranks : row.planned.total();
    if (static_cast<double>(here) > 0.92 * static_cast<double>(device_bytes(kind_)))
      return fmt::format("{} has {}", kind_ == DeviceKind::cpu ? "this machine" : "a GPU",
                         human_bytes(static_cast<double>(device_bytes(kind_))));
    return "";
  }

  void measure(MoeRow& row, const Json& run) {
    const TrainFlags flags{.watch =
                               [&](const StepRecord& r) {
                                 row.peak_bytes = std::max(row.peak_bytes, r.peak_bytes);
                                 if (r.step > kWarmupSteps) row.step_seconds.push_back(r.seconds);
                                 progress_.step(r.step, kWarmupSteps + options_.steps, fmt::format("{:.0f} ms", r.seconds * 1e3));
                               },
                           .threads = result_.threads};
    const QuietRun done = run_quietly(run, flags, stop_);
    row.kind = done.end == RunEnd::finished ? MoeRow::Kind::measured
               : done.end == RunEnd::failed ? MoeRow::Kind::failed
                                            : MoeRow::Kind::interrupted;
    row.note = done.error;
    row.seconds = median(row.step_seconds);
  }

  // The measured row of the same mesh, or of one rank, that `better` prefers.
  template <class Better>
  static const MoeRow* measured(const MoeTable& table, const std::string& words, const Better& better) {
    const MoeRow* best = nullptr;
    for (const MoeRow& row : table.rows)
      if (row.kind == MoeRow::Kind::measured && (row.mesh.ranks == 1 || row.words == words) &&
          (!best || better(row.mesh.ranks, best->mesh.ranks)))
        best = &row;
    return best;
  }

  // Efficiency refers to the smallest number of ranks, a predicted time to the largest, as that is nearest.
  void rate(MoeRow& row, const MoeTable& table) const {
    const bool predicted = row.kind == MoeRow::Kind::predicted;
    const MoeRow* base = measured(table, row.words, std::less<>());
    if (!base || (!predicted && row.kind != MoeRow::Kind::measured)) return;
    const MoeRow& near = *measured(table, row.words, std::greater<>());
    const auto sending = [&](const MoeRow& r) { return static_cast<double>(r.sent_bytes) / options_.link; };
    if (predicted && options_.link > 0) row.seconds = std::max(0.0, near.seconds - sending(near)) + sending(row);
    row.efficiency = row.rank_rate() / base->rank_rate();
  }

  const MoeOptions& options_;
  const std::atomic<bool>& stop_;
  DeviceKind kind_;
  TemporaryFolder data_;
  BenchProgress progress_;
  MoeResult result_;
};

}    // namespace

const char* name(MoeRow::Kind kind) {
  constexpr const char* kNames[] = {"measured", "predicted", "failed", "interrupted", "impossible"};
  return kNames[static_cast<std::size_t>(kind)];
}

bool MoeResult::failed() const {
  return std::any_of(tables.begin(), tables.end(), [](const MoeTable& table) {
    return std::any_of(table.rows.begin(), table.rows.end(), [](const MoeRow& row) { return row.kind == MoeRow::Kind::failed; });
  });
}

MoeResult run_moe(const MoeOptions& options, const std::atomic<bool>& stop, const std::function<void(const MoeResult&)>& each) {
  return Moe(options, stop).go(each);
}

}    // namespace sheaf
