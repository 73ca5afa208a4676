#include "data/tokenize.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ordered_workers.h"
#include "base/text.h"
#include "data/byte_stream.h"
#include "data/jsonl.h"
#include "data/scan.h"

namespace sheaf {
namespace {

constexpr std::size_t kPart = std::size_t{1} << 18;    // bytes of text that a worker takes at once: 10 ms or so

// ".jsonl" of "a.jsonl.gz".
std::string text_ending(const std::string& path) {
  const std::filesystem::path p(path);
  return is_compressed(path) ? p.stem().extension() : p.extension();
}

// What a worker takes: whole lines of a JSONL file, or a part of a document.
struct Piece {
  std::shared_ptr<const std::string> text;
  std::size_t begin = 0, end = 0;    // the piece is [begin, end) of it; around it is what its encoding may look at
  std::int64_t first_line = 0;       // .jsonl
  std::int64_t consumed = 0;         // bytes of the files, this piece included
  bool ends_document = false;        // .txt
  std::size_t file = 0;
};
struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> counts;          // empty: all do
  std::vector<std::size_t> document_ends;    // in ids
  std::int64_t consumed = 0;
  bool any_text = false;
};

class PieceReader {
 public:
  explicit PieceReader(const std::string& path) : stream_(open_byte_stream(path)) {}
  virtual ~PieceReader() = default;
  virtual std::optional<Piece> next() = 0;
  std::int64_t size() const { return stream_->size(); }

 protected:
  bool more(std::string& buffer) {
    const std::string_view block = stream_->next();
    buffer += block;
    return !block.empty();
  }
  std::unique_ptr<ByteStream> stream_;
};

class LineReader : public PieceReader {
 public:
  using PieceReader::PieceReader;
  std::optional<Piece> next() override {
    while (!done_ && buffer_.size() < kPart) done_ = !more(buffer_);
    // The last line end of the first kPart bytes; a line that is longer goes on to its own end.
    std::size_t end = buffer_.rfind('\n', kPart - 1);
    for (std::size_t from = kPart; end == std::string::npos; from = std::max(from, buffer_.size())) {
      end = buffer_.find('\n', from);
      if (end != std::string::npos || done_) break;
      done_ = !more(buffer_);
    }
    const std::size_t length = end == std::string::npos ? buffer_.size() : end + 1;
    if (length == 0) return std::nullopt;
    auto text = std::make_shared<const std::string>(buffer_, 0, length);
    buffer_.erase(0, length);
    const std::int64_t first_line = line_;
    line_ += std::count(text->begin(), text->end(), '\n');
    return Piece{.text = std::move(text), .end = length, .first_line = first_line, .consumed = stream_->consumed()};
  }

 private:
  std::string buffer_;
  std::int64_t line_ = 1;
  bool done_ = false;
};

// Cuts one document where its encoder says that it may be cut.
class DocumentReader : public PieceReader {
 public:
  DocumentReader(const std::string& path, const Encoder& encoder) : PieceReader(path), encoder_(encoder) {}
  std::optional<Piece> next() override {
    while (ready_ == ends_.size()) {
      if (done_) return std::nullopt;
      fill();
    }
    const std::size_t end = ends_[ready_++];
    Piece piece{.text = buffer_, .begin = begin_, .end = end, .consumed = stream_->consumed()};
    piece.ends_document = done_ && ready_ == ends_.size();
    begin_ = end;
    return piece;
  }

 private:
  static constexpr std::size_t kContext = 16;    // that a part is not the begin of its document is all that is to be seen of it

  // A new buffer, since pieces still hold the old one. What is left of that begins at a cut, or at the begin of the document. Where no cut
  // was found, it becomes twice as large: linear work.
  void fill() {
    const std::size_t left = buffer_->size() - begin_, context = std::min(begin_, kContext);
    auto next = std::make_shared<std::string>(*buffer_, begin_ - context);
    const std::size_t wanted = std::max(8 * kPart, 2 * left);
    while (!done_ && next->size() < wanted) done_ = !more(*next);
    begin_ = context;
    ends_.clear();
    ready_ = 0;
    if (next->size() > context) ends_ = encoder_.cuts(std::string_view(*next).substr(context), kPart);
    if (!done_) ends_.pop_back();    // the end of the buffer is not one of the document
    for (std::size_t& end : ends_) end += context;
    buffer_ = std::move(next);
  }

  const Encoder& encoder_;
  std::shared_ptr<const std::string> buffer_ = std::make_shared<std::string>();
  std::size_t begin_ = 0, ready_ = 0;
  std::vector<std::size_t> ends_;    // in *buffer_; those before ready_ are done
  bool done_ = false;
};

bool has_lines(const std::string& path) { return text_ending(path) == ".jsonl"; }

// The pieces of all files, one file after the other.
class CorpusReader {
 public:
  CorpusReader(const std::vector<std::string>& files, const Encoder& encoder) : files_(files), encoder_(encoder) {}
  std::optional<Piece> next() {
    for (; at_ < files_.size(); ++at_) {
      if (!reader_) open(files_[at_]);
      if (std::optional<Piece> piece = reader_->next()) {
        piece->file = at_;
        piece->consumed += before_;
        return piece;
      }
      before_ += reader_->size();
      reader_.reset();
    }
    return std::nullopt;
  }

 private:
  void open(const std::string& path) {
    if (has_lines(path))
      reader_ = std::make_unique<LineReader>(path);
    else
      reader_ = std::make_unique<DocumentReader>(path, encoder_);
  }

  const std::vector<std::string>& files_;
  const Encoder& encoder_;
  std::unique_ptr<PieceReader> reader_;
  std::size_t at_ = 0;
  std::int64_t before_ = 0;    // bytes of the files that are done
};

class PieceEncoder {
 public:
  PieceEncoder(const std::vector<std::string>& files, const TextOptions& options) : files_(files), options_(options) {}

  Encoded operator()(const Piece& piece) const {
    Encoded out;
    out.consumed = piece.consumed;
    const std::string& path = files_[piece.file];
    if (has_lines(path)) {
      encode_lines(piece, out);
      return out;
    }
    options_.encoder->encode_part(*piece.text, piece.begin, piece.end, out.ids);
    out.any_text = !out.ids.empty();
    check_ids(out.ids, 0, path);
    if (piece.ends_document) end_document(out, false);
    return out;
  }

 private:
  void encode_lines(const Piece& piece, Encoded& out) const {
    const std::string_view all = *piece.text;
    std::int64_t number = piece.first_line;
    for (std::size_t begin = 0; begin < all.size(); ++number) {
      const std::size_t end = std::min(all.find('\n', begin), all.size());
      const std::string_view line = trimmed(all.substr(begin, end - begin));
      begin = end + 1;
      if (!line.empty()) encode_line(line, fmt::format("{}:{}", files_[piece.file], number), out);
    }
  }
  void encode_line(std::string_view line, const std::string& where, Encoded& out) const {
    const JsonlDocument document = parse_jsonl_line(line, options_.field, where);
    const std::size_t begin = out.ids.size();
    const bool chat = !document.messages.is_null();
    if (!chat) {
      options_.encoder->encode(document.text, out.ids);
      if (!out.counts.empty()) out.counts.resize(out.ids.size(), 1);
    } else {
      if (!options_.chat && !options_.chat_error.empty()) user_error("{}: is a conversation, but {}", where, options_.chat_error);
      if (!options_.chat)
        user_error(
            "{}: is a conversation, and there is no chat template: the model folder has none (chat_template.jinja, or chat_template "
            "in tokenizer_config.json)",
            where);
      out.counts.resize(begin, 1);
      options_.chat->encode(document.messages, document.tools, where, out.ids, out.counts);
    }
    check_ids(out.ids, begin, where);
    out.any_text |= out.ids.size() > begin;
    end_document(out, chat);
  }
  // A conversation's end is its template's business: the end-of-text token after it only parts it from the next one.
  void end_document(Encoded& out, bool chat) const {
    const std::size_t begin = out.document_ends.empty() ? 0 : out.document_ends.back();
    const bool ended = chat && out.ids.size() > begin && out.ids.back() == options_.end_of_text;
    if (!ended) {
      out.ids.push_back(options_.end_of_text);
      if (!out.counts.empty()) out.counts.push_back(!chat);
    }
    out.document_ends.push_back(out.ids.size());
  }
  void check_ids(const std::vector<std::int32_t>& ids, std::size_t begin, const std::string& where) const {
    const auto added = std::span(ids).subspan(begin);
    if (const std::int64_t at = first_not_below(added, options_.vocab); at >= 0)
      user_error("{}: {} {} of the text is {}, but the model's vocabulary has {} ids", where,
                 options_.encoder->name() == "bytes" ? "byte" : "token", at, added[static_cast<std::size_t>(at)], options_.vocab);
  }

  const std::vector<std::string>& files_;
  TextOptions options_;
};

void give(const Encoded& encoded, TokenSink& sink, TextProgress& progress) {
  const std::span ids(encoded.ids);
  const std::span counts(encoded.counts);
  std::size_t begin = 0;
  const auto append = [&](std::size_t end) {
    if (end > begin) sink.append(ids.subspan(begin, end - begin), counts.empty() ? counts : counts.subspan(begin, end - begin));
    begin = end;
  };
  for (const std::size_t end : encoded.document_ends) {
    append(end);
    sink.end_document();
  }
  append(ids.size());
  progress.bytes = encoded.consumed;
  progress.documents += std::ssize(encoded.document_ends);
  progress.tokens += std::ssize(ids);
  progress.counted += counts.empty() ? std::ssize(ids) : std::count(counts.begin(), counts.end(), 1);
}

}    // namespace

bool is_text(const std::string& path) {
  std::error_code ignored;
  const std::string ending = text_ending(path);
  return ending == ".txt" || ending == ".jsonl" || std::filesystem::is_directory(path, ignored);
}

std::vector<std::string> text_files(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<std::string> files;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with('.'))
      entry.disable_recursion_pending();
    else if (entry->is_regular_file() && is_text(entry->path()))
      files.push_back(entry->path());
  }
  if (error) user_error("{}: cannot be read: {}", path, error.message());
  if (files.empty()) user_error("{}: no text in this folder; wanted .txt or .jsonl, plain or with .gz or .zst", path);
  std::sort(files.begin(), files.end());
  return files;
}

TextProgress tokenize_text(const std::string& path, const TextOptions& options, TokenSink& sink, const std::atomic<bool>& stop,
                           const std::function<void(const TextProgress&)>& report) {
  SHEAF_CHECK(is_text(path) && options.encoder && options.threads > 0, "{}: not for the text pipeline", path);
  const std::vector<std::string> files = text_files(path);
  CorpusReader reader(files, *options.encoder);
  TextProgress progress;
  std::error_code error;
  for (const std::string& file : files)
    if (const auto size = std::filesystem::file_size(file, error); !error) progress.all_bytes += static_cast<std::int64_t>(size);
  bool any_text = false;
  const PieceEncoder encode(files, options);
  OrderedWorkers<Piece, Encoded> workers(static_cast<std::size_t>(options.threads), [&](const Piece& piece) { return encode(piece); });
  for (bool more = true; more || workers.size() > 0;) {
    if (stop.load()) throw Interrupted();
    if (more && workers.size() < 2 * workers.num_threads()) {
      std::optional<Piece> piece = reader.next();
      more = piece.has_value();
      if (piece) workers.push(std::move(*piece));
      continue;
    }
    const Encoded encoded = workers.pop();
    any_text |= encoded.any_text;
    give(encoded, sink, progress);
    if (report) report(progress);
  }
  if (!any_text) user_error("{}: empty corpus: {} documents, and no text in them", path, progress.documents);
  return progress;
}

}    // namespace sheaf
