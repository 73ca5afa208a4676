// sheaf tokenize: a file of text to Megatron's .bin and .idx.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "data/megatron_writer.h"
#include "data/text_tokenizer.h"
#include "engine/progress_line.h"
#include "models/config_reader.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

struct TokenizeArguments {
  std::string model, data, output, tokenizer, field;
  int threads = 0;
  bool force = false;
};

// Only what tokenizing needs is read, so a model that is not trained yet will do, and weights need not be there.
TokenOptions options_of(const TokenizeArguments& a) {
  const std::string path = fs::path(a.model) / "config.json";
  std::error_code ignored;
  if (!fs::is_directory(a.model, ignored)) user_error("{}: no such folder; a HuggingFace model folder was wanted", a.model);
  const Json config = read_json(path);
  const ConfigReader reader(config, path);
  return {.tokenizer = a.tokenizer,
          .model_folder = a.model,
          .vocab = reader.size("vocab_size"),
          .end_of_text = reader.first_integer("eos_token_id"),
          .field = a.field,
          .threads = a.threads > 0 ? a.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
}

int tokenize(const TokenizeArguments& a, const std::atomic<bool>& stop) {
  if (!is_text(a.data)) user_error("{}: is no text; wanted .txt or .jsonl, plain or with .gz or .zst, or a folder of them", a.data);
  std::error_code ignored;
  if (!fs::exists(a.data, ignored)) user_error("{}: no such file", a.data);
  for (const char* ending : {".bin", ".idx", ".mask"})
    if (!a.force && fs::exists(a.output + ending, ignored))
      user_error("{}: is there already; --force replaces it, or name another --output", a.output + ending);
  const TokenOptions options = options_of(a);
  const TextTokenizer tokenizer(options, a.data);
  const auto begin = std::chrono::steady_clock::now();
  TextProgress done;
  {
    MegatronWriter writer(a.output, options.vocab);
    TokenizeLine line(a.data);
    done = tokenize_text(a.data, tokenizer.options(), writer, stop, [&](const TextProgress& p) { line.show(p); });
    writer.finish();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%s: %s in %s\n%s.bin, %s.idx%s\n", a.data.c_str(), token_counts(done).c_str(), human_time(seconds).c_str(), a.output.c_str(),
              a.output.c_str(), fs::exists(a.output + ".mask", ignored) ? fmt::format(", {}.mask", a.output).c_str() : "");
  return 0;
}

}    // namespace

Action tokenize_command(CLI::App& app) {
  auto a = std::make_shared<TokenizeArguments>();
  app.add_option("--model", a->model, "the HuggingFace model folder: config.json, tokenizer.json, chat template")
      ->required()
      ->type_name("DIR");
  app.add_option("--data", a->data, "text: .txt or .jsonl, plain or with .gz or .zst, or a folder of them")->required()->type_name("FILE");
  app.add_option("--output", a->output, "writes PREFIX.bin and PREFIX.idx; of conversations PREFIX.mask, too")
      ->required()
      ->type_name("PREFIX");
  app.add_option("--tokenizer", a->tokenizer, "another tokenizer.json, or: bytes")->type_name("FILE");
  app.add_option("--field", a->field, "of a JSONL line: a text or a list of messages; default: text, or messages")->type_name("NAME");
  app.add_option("--threads", a->threads, "that encode; default: all of the machine")->check(CLI::PositiveNumber);
  app.add_flag("--force", a->force, "replace the output if it is there");
  app.footer("Ctrl-C ends it and leaves nothing behind. The files are Megatron-LM's; data.train of a run names the .bin.");
  return [a]() -> int { return until_interrupted([&](const std::atomic<bool>& stop) { return tokenize(*a, stop); }); };
}

}    // namespace sheaf
