#include "engine/corpus.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "engine/progress_line.h"

namespace sheaf {

std::string default_cache(const std::string& output) {
  std::filesystem::path path(output);
  if (!path.has_filename()) path = path.parent_path();    // "out/"
  return path.parent_path() / ".sheaf_cache";
}

Corpus::Corpus(const std::vector<CorpusFile>& files, const CorpusOptions& options) : files_(files) {
  SHEAF_CHECK(!files.empty(), "a corpus of no files");
  std::vector<const RowSet*> sets, held_out;
  for (const CorpusFile& file : files) {
    SHEAF_CHECK((file.weight > 0) == weighted(), "{}: weights for all files or for none", file.path);
    TokenizeLine line(file.path);
    sources_.push_back(open_tokens(file.path, {.tokenizer = options.tokenizer,
                                               .model_folder = options.model_folder,
                                               .vocab = options.vocab,
                                               .end_of_text = options.end_of_text,
                                               .field = options.field,
                                               .threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
                                               .cache = options.cache,
                                               .stop = options.stop,
                                               .say = options.say,
                                               .report = [&](const TextProgress& progress) { line.show(progress); }}));
    rows_.push_back(std::make_unique<Rows>(*sources_.back(), options.seq_len, options.packing));
    const Rows& rows = *rows_.back();
    if (options.held_out == 0) {
      sets.push_back(&rows);
      continue;
    }
    const auto share = static_cast<std::int64_t>(options.held_out * static_cast<double>(rows.count()));
    const std::int64_t kept = rows.count() - std::max<std::int64_t>(1, share);
    if (kept < 1)
      user_error("{}: has 1 row of {} tokens: none is left to train on if one is held out; give data.eval in place of data.eval_split",
                 file.path, rows.seq_len());
    sets.push_back(ranges_.emplace_back(std::make_unique<RowRange>(rows, 0, kept)).get());
    held_out.push_back(ranges_.emplace_back(std::make_unique<RowRange>(rows, kept, rows.count())).get());
  }
  union_ = std::make_unique<RowUnion>(std::move(sets));
  if (!held_out.empty()) held_out_ = std::make_unique<RowUnion>(std::move(held_out));
}

std::unique_ptr<Batches> Corpus::batches(std::int64_t batch_size, bool shuffle, std::uint64_t seed) const {
  if (!weighted()) return std::make_unique<Batches>(*union_, batch_size, shuffle, seed);
  std::vector<double> weights;
  for (const CorpusFile& file : files_) weights.push_back(file.weight);
  return std::make_unique<Batches>(*union_, weights, batch_size, shuffle, seed);
}

Json Corpus::identity() const {
  Json out = Json::array();
  for (std::size_t i = 0; i < files_.size(); ++i) {
    Json file = {{"rows", union_->sets()[i]->count()}, {"tokens", sources_[i]->size()}};
    if (weighted()) file["weight"] = files_[i].weight;
    out.push_back(file);
  }
  return out;
}

std::vector<std::string> Corpus::description(std::int64_t rows) const {
  if (files_.size() == 1) return {};
  double total = 0;
  for (std::size_t i = 0; i < files_.size(); ++i) total += weighted() ? files_[i].weight : static_cast<double>(union_->sets()[i]->count());
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const double share = (weighted() ? files_[i].weight : static_cast<double>(union_->sets()[i]->count())) / total;
    lines.push_back(fmt::format("{}: {:.2f} % of the rows; it has {}, so {:.2f} epochs of it", files_[i].path, 100 * share,
                                union_->sets()[i]->count(),
                                share * static_cast<double>(rows) / static_cast<double>(union_->sets()[i]->count())));
  }
  return lines;
}

}    // namespace sheaf
