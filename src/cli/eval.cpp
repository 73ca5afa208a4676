// sheaf eval: loss, perplexity and log-probabilities of a model folder on a file.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/atomic_folder.h"
#include "checkpoint/hf_folder.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "engine/corpus.h"
#include "engine/evaluation.h"
#include "engine/progress_line.h"
#include "engine/weights.h"
#include "models/model_config.h"
#include "runtime/device.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

struct EvalArguments {
  std::string model, data, device, logprobs, tokenizer, field, packing = "concat", dtype = "fp32";
  std::int64_t seq_len = 0, rows_at_once = 0;
  bool json = false;
};

// logprobs fp32 and targets i32, both [rows, S], in one safetensors file that appears when it is whole. A target that does not count is
// -100 and has log-probability 0.
class LogprobsFile {
 public:
  LogprobsFile(const std::string& path, std::int64_t rows, std::int64_t seq_len)
      : path_(path), temporary_(fmt::format("{}.tmp-{}", path, ::getpid())), file_(temporary_), seq_len_(seq_len) {
    const std::vector<TensorToWrite> tensors = {{"logprobs", DType::fp32, {rows, seq_len}}, {"targets", DType::i32, {rows, seq_len}}};
    const std::string header = safetensors_header(tensors);
    file_.write_at(0, header);
    logprobs_ = static_cast<std::int64_t>(header.size());
    targets_ = logprobs_ + rows * seq_len * static_cast<std::int64_t>(sizeof(float));
  }
  LogprobsFile(const LogprobsFile&) = delete;
  LogprobsFile& operator=(const LogprobsFile&) = delete;
  ~LogprobsFile() {
    std::error_code ignored;
    if (!finished_) fs::remove(temporary_, ignored);
  }

  void write(const Evaluator::Batch& batch) {
    buffer_.assign(batch.nll.begin(), batch.nll.end());
    for (std::size_t i = 0; i < buffer_.size(); ++i) buffer_[i] = batch.targets[i] >= 0 ? -buffer_[i] : 0.0f;
    const std::int64_t at = batch.first_row * seq_len_ * 4;    // both have elements of 4 bytes
    file_.write_at(logprobs_ + at, std::as_bytes(std::span(buffer_)));
    file_.write_at(targets_ + at, std::as_bytes(batch.targets));
  }
  void finish() {
    file_.sync_and_close();
    std::error_code error;
    fs::rename(temporary_, path_, error);
    if (error) user_error("{}: cannot be written: {}", path_, error.message());
    finished_ = true;
  }

 private:
  std::string path_, temporary_;
  OutputFile file_;
  std::int64_t seq_len_, logprobs_ = 0, targets_ = 0;
  std::vector<float> buffer_;
  bool finished_ = false;
};

int evaluate(const EvalArguments& a, const std::atomic<bool>& stop) {
  const DeviceKind device = chosen_device(a.device);
  const HfFolder folder(a.model);
  const std::string where = folder.path() + "/config.json";
  const ModelConfig model = parse_model_config(folder.config(), where);
  const Corpus corpus({{a.data}}, {.seq_len = a.seq_len,
                                   .packing = a.packing == "documents" ? Packing::documents : Packing::concat,
                                   .tokenizer = a.tokenizer,
                                   .field = a.field,
                                   .model_folder = folder.path(),
                                   .vocab = model.vocab,
                                   .end_of_text = model.eos_id,
                                   .stop = &stop});
  const RowSet& rows = corpus.rows();
  constexpr std::int64_t kTokensAtOnce = 8192;    // enough to fill a GPU; their logits are 5 GB with a vocabulary of 152,000
  const std::int64_t at_once = a.rows_at_once > 0 ? a.rows_at_once : std::max<std::int64_t>(1, kTokensAtOnce / a.seq_len);
  Evaluator evaluator(folder.config(), where, rows,
                      {.compute = a.dtype == "bf16" ? DType::bf16 : DType::fp32, .device = device, .rows_at_once = at_once});
  load_weights(evaluator.executor(), folder, model.tied_head);

  std::optional<LogprobsFile> logprobs;
  if (!a.logprobs.empty()) logprobs.emplace(a.logprobs, rows.count(), rows.seq_len());
  Evaluation result;
  {
    ProgressLine line(ProgressLine::AtEnd::goes);
    result = evaluator.run(
        [&](const Evaluator::Batch& batch) {
          if (logprobs) logprobs->write(batch);
          if (!line.due()) return;
          const auto done = static_cast<double>(batch.first_row + batch.rows), all = static_cast<double>(rows.count());
          line.show(fmt::format("{:.0f} of {:.0f} rows  {:.1f} rows/s  eta {}", done, all, done / line.seconds(),
                                human_time(line.seconds() * (all - done) / done)));
        },
        [&] { return stop.load(); });
  }
  if (stop) return 130;
  if (logprobs) logprobs->finish();
  if (a.json) {
    const Json json = {{"loss", result.loss}, {"perplexity", result.perplexity()}, {"tokens", result.tokens}};
    std::printf("%s\n", json.dump().c_str());
  } else {
    fmt::print("loss {:.6f}  perplexity {:.4f}  of {} tokens in {} rows  ({} tokens/s)\n", result.loss, result.perplexity(), result.tokens,
               rows.count(), human_count(static_cast<double>(result.tokens) / result.seconds));
    if (logprobs) fmt::print("log-probabilities: {}\n", a.logprobs);
  }
  return 0;
}

}    // namespace

Action eval_command(CLI::App& app) {
  auto a = std::make_shared<EvalArguments>();
  app.add_option("--model", a->model, "the HuggingFace model folder")->required()->type_name("DIR");
  app.add_option("--data", a->data, "text (.txt, .jsonl, also .gz or .zst, or a folder of them), or a Megatron .bin")
      ->required()
      ->type_name("FILE");
  app.add_option("--seq-len", a->seq_len, "tokens of a row")->required()->check(CLI::PositiveNumber)->type_name("S");
  app.add_option("--device", a->device, "cpu or cuda; default: a GPU if there is one")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--logprobs", a->logprobs, "write logprobs (fp32) and targets (-100: does not count), both [rows, S]")
      ->type_name("F.safetensors");
  app.add_flag("--json", a->json, "print one JSON object: loss, perplexity, tokens");
  app.add_option("--dtype", a->dtype, "of the computation: fp32 (default) or bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--packing", a->packing, "concat (default) or documents, as data.packing")->check(CLI::IsMember({"concat", "documents"}));
  app.add_option("--rows", a->rows_at_once, "computed at once; default: 8192 tokens")->check(CLI::PositiveNumber);
  app.add_option("--tokenizer", a->tokenizer, "another tokenizer.json, or: bytes")->type_name("FILE");
  app.add_option("--field", a->field, "of a JSONL line: a text or a list of messages; default: text, or messages")->type_name("NAME");
  app.footer(
      "The loss is the mean over all predictions that count, in nats; perplexity is its exponential. Rows that the last S tokens do "
      "not fill are left out.");
  return [a]() -> int { return until_interrupted([&](const std::atomic<bool>& stop) { return evaluate(*a, stop); }); };
}

}    // namespace sheaf
