#include "engine/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/text.h"
#include "comm/host_ops.h"
#include "engine/held.h"
#include "models/loss.h"
#include "models/model.h"
#include "passes/pass.h"

namespace sheaf {

double Evaluation::perplexity() const { return std::exp(loss); }

static Graph scoring_graph(const Json& model, const std::string& where, const RowSet& rows, std::int64_t at_once,
                           const EvaluatorOptions& options) {
  const ModelShape shape{.rows = at_once, .seq_len = rows.seq_len(), .documents = rows.documents()};
  Graph graph = build_model(model, shape, options.compute, Mode::score, where);
  std::vector<Pass> passes;
  for (const char* name : {"anchor", "propagate", "remove_dead", "lower_reshards", "tile", "fuse", "join_products"})
    passes.push_back(find_pass(name));
  return RunPasses{}(std::move(graph), passes, options.placement);
}

// One rank takes no more rows at once than there are; on a mesh every rank has a share of each batch, empty rows in the last one.
static std::int64_t rows_of_batch(const RowSet& rows, const EvaluatorOptions& options) {
  return options.rank.transport ? options.rows_at_once : std::min(options.rows_at_once, rows.count());
}

Evaluator::Evaluator(const Json& model, const std::string& where, const RowSet& rows, const EvaluatorOptions& options)
    : rows_(rows),
      rows_at_once_(rows_of_batch(rows, options)),
      rank_(options.rank),
      executor_(scoring_graph(model, where, rows, rows_at_once_, options),
                {.device = options.device,
                 .device_index = options.rank.device_index,
                 .deterministic = options.deterministic,
                 .beside = options.beside,
                 .transport = options.rank.transport,
                 .cuda_graphs = options.cuda_graphs ? std::nullopt : std::optional(false)}),
      buffers_(rows, executor_) {
  nll_.resize(static_cast<std::size_t>(num_elements(executor_.local_shape(executor_.graph().find(kScores)))));
}

Evaluation Evaluator::run(const std::function<void(const Batch&)>& each, const std::function<bool()>& stop) {
  const auto begin = std::chrono::steady_clock::now();
  Evaluation result;
  double sum = 0;
  const Value scores = executor_.graph().find(kScores);
  const bool counts = is_first_holder(executor_.graph(), scores, executor_.rank());
  const auto [first_place, last_place] = buffers_.places(0);
  for (std::int64_t first = 0; first < rows_.count() && !(stop && stop()); first += rows_at_once_) {
    // This rank's places of the batch, as far as there are rows.
    const std::int64_t count = std::min(rows_at_once_, rows_.count() - first);
    const std::int64_t held = std::clamp<std::int64_t>(count - first_place, 0, last_place - first_place);
    for (std::int64_t i = 0; i < held; ++i) rows_.fill(first + first_place + i, buffers_.row(i));
    buffers_.clear(held);    // what is left of the last batch
    buffers_.give(executor_);
    executor_.run_step();
    executor_.read(scores, nll_.data(), static_cast<std::int64_t>(nll_.size() * sizeof(float)));
    const std::vector<std::int32_t> labels = buffers_.labels();
    const std::size_t used =
        last_place == first_place ? 0 : nll_.size() / static_cast<std::size_t>(last_place - first_place) * static_cast<std::size_t>(held);
    const std::span<const std::int32_t> targets(labels.data(), used);
    for (std::size_t i = 0; i < used && counts; ++i)
      if (targets[i] >= 0) sum += static_cast<double>(nll_[i]), ++result.tokens;
    if (each) each({first, count, {nll_.data(), used}, targets});
  }
  if (rank_.transport) {    // in the order of the ranks
    std::int64_t tokens = 0;
    double all = 0;
    for (const std::string& text : all_gather_text(*rank_.host(), fmt::format("{} {}", shortest(sum), result.tokens), "evaluation")) {
      all += std::stod(text);
      tokens += std::stoll(text.substr(text.find(' ')));
    }
    sum = all, result.tokens = tokens;
  }
  result.loss = result.tokens ? sum / static_cast<double>(result.tokens) : 0;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}    // namespace sheaf
