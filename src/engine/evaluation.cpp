#include "engine/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "models/loss.h"
#include "models/model.h"
#include "passes/pass.h"

namespace sheaf {

double Evaluation::perplexity() const { return std::exp(loss); }

static Graph scoring_graph(const Json& model, const std::string& where, const RowSet& rows, const EvaluatorOptions& options) {
  const ModelShape shape{
      .rows = std::min(options.rows_at_once, rows.count()), .seq_len = rows.seq_len(), .documents = rows.documents()};
  Graph graph = build_model(model, shape, options.compute, Mode::score, where);
  return RunPasses{}(std::move(graph), {find_pass("remove_dead")}, {});
}

Evaluator::Evaluator(const Json& model, const std::string& where, const RowSet& rows, const EvaluatorOptions& options)
    : rows_(rows),
      rows_at_once_(std::min(options.rows_at_once, rows.count())),
      executor_(scoring_graph(model, where, rows, options),
                {.device = options.device, .deterministic = options.deterministic, .beside = options.beside}) {
  const auto n = static_cast<std::size_t>(rows_at_once_ * rows.seq_len());
  for (auto* buffer : {&ids_, &labels_, &positions_}) buffer->resize(n);
  document_ends_.resize(static_cast<std::size_t>(rows_at_once_ * rows.documents()));
  nll_.resize(n);
}

void Evaluator::load(std::int64_t first, std::int64_t count) {
  const std::int64_t s = rows_.seq_len(), c = rows_.documents();
  for (std::int64_t i = 0; i < count; ++i)
    rows_.fill(first + i, {ids_.data() + i * s, labels_.data() + i * s, positions_.data() + i * s, document_ends_.data() + i * c});
  // Rows that fill the last batch up: nothing in them counts.
  std::fill(ids_.begin() + count * s, ids_.end(), 0);
  std::fill(labels_.begin() + count * s, labels_.end(), kIgnoredLabel);
  for (std::int64_t i = count; i < rows_at_once_; ++i) std::iota(positions_.begin() + i * s, positions_.begin() + (i + 1) * s, 0);
  std::fill(document_ends_.begin() + count * c, document_ends_.end(), 0);
  const auto give = [&](const char* name, const std::vector<std::int32_t>& data) {
    if (const Value v = executor_.graph().find(name))
      executor_.write(v, data.data(), static_cast<std::int64_t>(data.size() * sizeof(std::int32_t)));
  };
  give("ids", ids_), give("labels", labels_), give("positions", positions_), give("document_ends", document_ends_);
}

Evaluation Evaluator::run(const std::function<void(const Batch&)>& each, const std::atomic<bool>* stop) {
  const auto begin = std::chrono::steady_clock::now();
  Evaluation result;
  double sum = 0;
  const Value scores = executor_.graph().find(kScores);
  for (std::int64_t first = 0; first < rows_.count() && !(stop && stop->load()); first += rows_at_once_) {
    const std::int64_t count = std::min(rows_at_once_, rows_.count() - first);
    load(first, count);
    executor_.run_step();
    executor_.read(scores, nll_.data(), static_cast<std::int64_t>(nll_.size() * sizeof(float)));
    const auto used = static_cast<std::size_t>(count * rows_.seq_len());
    for (std::size_t i = 0; i < used; ++i)
      if (labels_[i] >= 0) sum += static_cast<double>(nll_[i]), ++result.tokens;
    if (each) each({first, count, {nll_.data(), used}, {labels_.data(), used}});
  }
  result.loss = result.tokens ? sum / static_cast<double>(result.tokens) : 0;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}    // namespace sheaf
