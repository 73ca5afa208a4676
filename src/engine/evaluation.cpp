#include "engine/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "models/loss.h"
#include "models/model.h"
#include "passes/pass.h"

namespace sheaf {

double Evaluation::perplexity() const { return std::exp(loss); }

static Graph scoring_graph(const Json& model, const std::string& where, const RowSet& rows, const EvaluatorOptions& options) {
  const ModelShape shape{.rows = std::min(options.rows_at_once, rows.count()), .seq_len = rows.seq_len(), .documents = rows.documents()};
  Graph graph = build_model(model, shape, options.compute, Mode::score, where);
  return RunPasses{}(std::move(graph), {find_pass("remove_dead")}, {});
}

Evaluator::Evaluator(const Json& model, const std::string& where, const RowSet& rows, const EvaluatorOptions& options)
    : rows_(rows),
      rows_at_once_(std::min(options.rows_at_once, rows.count())),
      executor_(scoring_graph(model, where, rows, options),
                {.device = options.device, .deterministic = options.deterministic, .beside = options.beside}),
      buffers_(rows, rows_at_once_) {
  nll_.resize(static_cast<std::size_t>(rows_at_once_ * rows.seq_len()));
}

Evaluation Evaluator::run(const std::function<void(const Batch&)>& each, const std::atomic<bool>* stop) {
  const auto begin = std::chrono::steady_clock::now();
  Evaluation result;
  double sum = 0;
  const Value scores = executor_.graph().find(kScores);
  for (std::int64_t first = 0; first < rows_.count() && !(stop && stop->load()); first += rows_at_once_) {
    const std::int64_t count = std::min(rows_at_once_, rows_.count() - first);
    for (std::int64_t i = 0; i < count; ++i) rows_.fill(first + i, buffers_.row(i));
    buffers_.clear(count);    // what is left of the last batch
    buffers_.give(executor_);
    executor_.run_step();
    executor_.read(scores, nll_.data(), static_cast<std::int64_t>(nll_.size() * sizeof(float)));
    const auto used = static_cast<std::size_t>(count * rows_.seq_len());
    const std::span<const std::int32_t> targets(buffers_.labels().data(), used);
    for (std::size_t i = 0; i < used; ++i)
      if (targets[i] >= 0) sum += static_cast<double>(nll_[i]), ++result.tokens;
    if (each) each({first, count, {nll_.data(), used}, targets});
  }
  result.loss = result.tokens ? sum / static_cast<double>(result.tokens) : 0;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}    // namespace sheaf
