#include "engine/profile.h"

#include <algorithm>
#include <map>

#include "base/json.h"
#include "base/text.h"

namespace sheaf {
namespace {

struct Sum {
  std::int64_t calls = 0;
  double seconds = 0, floor = 0, flops = 0, bytes = 0;
  bool beside = false;
};
std::string ms(double seconds) { return fmt::format("{:.2f}", seconds * 1e3); }
std::string rate(double amount, double seconds) { return seconds > 0 ? fmt::format("{:.3g}", amount / seconds) : "-"; }
std::string percent(double part, double whole) { return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "-"; }

std::vector<std::pair<std::string, Sum>> longest_first(const std::map<std::string, Sum>& sums) {
  std::vector<std::pair<std::string, Sum>> sorted(sums.begin(), sums.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return sorted;
}

// "model.layers.12" -> "model.layers", 12; no number at the end: -1.
std::pair<std::string, int> numbered(const std::string& part) {
  const std::size_t dot = part.rfind('.');
  if (dot == std::string::npos || part.find_first_not_of("0123456789", dot + 1) != std::string::npos) return {part, -1};
  return {part.substr(0, dot), std::stoi(part.substr(dot + 1))};
}

}    // namespace

Profile::Profile(const Executor& executor, const DeviceRates& rates) : executor_(executor), rates_(rates) {
  const Graph& graph = executor.graph();
  const Parts parts = parts_of(graph);
  for (const CallTime& time : executor.call_times()) {
    if (time.track == Track::waits) {
      waited_ += time.seconds, total_ += time.seconds;
      calls_.push_back({time, nullptr, "", {}, 0});
      continue;
    }
    const Node& node = graph.nodes(time.segment)[time.node];
    const CallWork work = work_of(executor, node);
    calls_.push_back(
        {time, &node, parts[static_cast<std::size_t>(time.segment)][time.node], work, rates_.floor(work.flops, work.bytes, work.dtype)});
    (time.track == Track::main ? total_ : beside_) += time.seconds;
  }
}

std::string Profile::text() const {
  std::vector<std::string> measured = {fmt::format("{:.3g} GB/s", rates_.bytes * 1e-9)};
  for (const auto& [dtype, rate] : rates_.flops) measured.push_back(fmt::format("{:.3g} TFLOP/s in {}", rate * 1e-12, name(dtype)));
  double floor = 0;
  for (const Call& call : calls_)
    if (call.time.track == Track::main) floor += call.floor;
  std::string out = by_op();
  out += fmt::format("all calls: {} ms; their floor, at the {} measured here: {} ms, {}\n", ms(total_), join(measured, " and "), ms(floor),
                     percent(floor, total_));
  if (beside_ > 0) out += fmt::format("collectives beside them: {} ms, of which {} ms were waited for\n", ms(beside_), ms(waited_));
  return out + "\n" + by_part() + "\nfurthest above their floor:\n" + above_floor();
}

std::string Profile::by_op() const {
  std::map<std::string, Sum> sums;
  for (const Call& call : calls_) {
    const bool waits = call.time.track == Track::waits;
    Sum& sum = sums[waits ? "waiting for collectives\n" : fmt::format("{}\n{}", call.node->op->name, call.time.kernel)];
    ++sum.calls, sum.seconds += call.time.seconds, sum.floor += call.floor, sum.flops += call.work.flops, sum.bytes += call.work.bytes;
    sum.beside = call.time.track == Track::collectives;
  }
  std::vector<std::vector<std::string>> rows = {{"op", "kernel", "calls", "ms", "share", "TFLOP/s", "GB/s", "floor ms", "of floor"}};
  for (const auto& [key, sum] : longest_first(sums)) {
    const std::size_t end = key.find('\n');
    rows.push_back({key.substr(0, end), key.substr(end + 1), std::to_string(sum.calls), ms(sum.seconds),
                    sum.beside ? "beside" : percent(sum.seconds, total_), rate(sum.flops * 1e-12, sum.seconds),
                    rate(sum.bytes * 1e-9, sum.seconds), ms(sum.floor), percent(sum.floor, sum.seconds)});
  }
  return table(rows);
}

std::string Profile::by_part() const {
  std::vector<std::string> order;
  std::map<std::string, Sum> sums;
  for (const Call& call : calls_) {
    if (call.time.track != Track::main) continue;
    const auto [entry, fresh] = sums.try_emplace(call.part);
    if (fresh) order.push_back(call.part);
    ++entry->second.calls, entry->second.seconds += call.time.seconds, entry->second.floor += call.floor;
  }
  std::map<std::string, std::size_t> first;    // layers stand together, by number, where the first of them was called
  for (std::size_t i = 0; i < order.size(); ++i) first.try_emplace(numbered(order[i]).first, i);
  std::stable_sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) {
    const auto [stem_a, number_a] = numbered(a);
    const auto [stem_b, number_b] = numbered(b);
    return std::pair(first.at(stem_a), number_a) < std::pair(first.at(stem_b), number_b);
  });
  std::vector<std::vector<std::string>> rows = {{"part", "calls", "ms", "share", "floor ms", "of floor"}};
  for (std::size_t i = 0; i < order.size();) {    // layers one after the other, of equal numbers of calls, are a row
    const auto [stem, number] = numbered(order[i]);
    Sum all;
    std::size_t n = 0;
    for (; i + n < order.size(); ++n) {
      const Sum& one = sums.at(order[i + n]);
      const auto next = numbered(order[i + n]);
      if (n > 0 &&
          (number < 0 || next.first != stem || next.second != number + static_cast<int>(n) || one.calls != sums.at(order[i]).calls))
        break;
      all.seconds += one.seconds, all.floor += one.floor;
    }
    const auto count = static_cast<double>(n);
    rows.push_back({n == 1 ? order[i] : fmt::format("{} {}-{}, each", stem, number, number + static_cast<int>(n) - 1),
                    std::to_string(sums.at(order[i]).calls), ms(all.seconds / count), percent(all.seconds, total_), ms(all.floor / count),
                    percent(all.floor, all.seconds)});
    i += n;
  }
  return table(rows);
}

std::string Profile::above_floor() const {
  constexpr std::size_t kRows = 10, kTypes = 6;
  std::map<std::string, Sum> sums;
  const Graph& graph = executor_.graph();
  for (const Call& call : calls_) {
    if (call.time.track != Track::main) continue;
    std::vector<std::string> types;
    for (const Values* side : {&call.node->in, &call.node->out})
      for (const Value v : *side)
        if (v && !executor_.local_shape(v).empty())
          types.push_back(print(Type{graph.type(v).dtype, executor_.local_shape(v), {}, graph.type(v).routed}, Mesh{}));
    if (types.size() > kTypes) types.resize(kTypes), types.emplace_back("...");
    Sum& sum = sums[fmt::format("{}\n{}\n{}", call.node->op->name, call.time.kernel, join(types, " "))];
    ++sum.calls, sum.seconds += call.time.seconds, sum.floor += call.floor;
  }
  auto sorted = longest_first(sums);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds - a.second.floor > b.second.seconds - b.second.floor; });
  std::vector<std::vector<std::string>> rows = {
      {"op", "kernel", "calls", "ms above", "ms", "floor ms", "of floor", "operands and results"}};
  for (std::size_t i = 0; i < std::min(kRows, sorted.size()); ++i) {
    const auto& [key, sum] = sorted[i];
    const std::vector<std::string> words = split(key, '\n');
    rows.push_back({words[0], words[1], std::to_string(sum.calls), ms(sum.seconds - sum.floor), ms(sum.seconds), ms(sum.floor),
                    percent(sum.floor, sum.seconds), words[2]});
  }
  return table(rows);
}

std::string write_profile(const Executor& executor, const DeviceRates& rates, const std::string& output, std::int64_t step) {
  const Profile profile(executor, rates);
  const std::string path = fmt::format("{}/profile_step_{}.json", output, step);
  write_file_atomically(path, profile.trace(step));
  return profile.text() + fmt::format("trace of step {}: {} (opens in ui.perfetto.dev and chrome://tracing)", step, path);
}

}    // namespace sheaf
