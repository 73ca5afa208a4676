#pragma once
// From text, a file or a folder, to tokens: reader, encoders on several threads, sink, one after the other and in order. Never the whole
// file in memory, but one line of a JSONL file, and of a .txt file what the tokenizer needs to find the next place to cut.
#include <atomic>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/chat.h"
#include "data/encoder.h"
#include "data/token_sink.h"

namespace sheaf {

// The user asked for an end (Ctrl-C) while no training step was there to finish: exit code 130.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

struct TextOptions {
  const Encoder* encoder = nullptr;
  const ChatEncoder* chat = nullptr;    // for lines with messages; none: they are an error
  std::string chat_error;               // why there is none, where that is known
  std::string field;                    // of a JSONL line; "": text, or messages
  std::int64_t vocab = 0;               // of the model: every id is below it
  std::int32_t end_of_text = 0;         // follows every document
  int threads = 1;
};

struct TextProgress {
  std::int64_t bytes = 0, all_bytes = 0;    // of the files on the disk
  std::int64_t documents = 0, tokens = 0;
  std::int64_t counted = 0;    // tokens whose prediction counts for the loss
};

// .txt and .jsonl, or the same with .gz or .zst behind it; a folder.
bool is_text(const std::string& path);
// The file itself; of a folder the text files in it and in its folders, by name, hidden ones left out. UserError where it has none.
std::vector<std::string> text_files(const std::string& path);

// What was done. `report` is called now and then, on the calling thread. Throws Interrupted soon after `stop` is set; UserError for
// whatever is wrong with a file, and where there is no text at all.
TextProgress tokenize_text(const std::string& path, const TextOptions& options, TokenSink& sink, const std::atomic<bool>& stop,
                           const std::function<void(const TextProgress&)>& report = {});

}    // namespace sheaf
