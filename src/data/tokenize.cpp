#include "data/tokenize.h"

#include <algorithm>
#include <filesystem>
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
  std::string text;
  std::size_t begin = 0;          // .txt: the part is [begin, size); before it is a bit of what came before, if anything did
  std::int64_t first_line = 0;    // .jsonl
  std::int64_t consumed = 0;      // bytes of the file, this piece included
  bool ends_document = false;     // .txt
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
    Piece piece{.text = buffer_.substr(0, length), .first_line = line_, .consumed = stream_->consumed()};
    buffer_.erase(0, length);
    line_ += std::count(piece.text.begin(), piece.text.end(), '\n');
    return piece;
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
      // What is left begins at a cut, or at the begin of the document. Twice as much as before where no cut was found: linear work.
      if (begin_ > kContext) {
        buffer_.erase(0, begin_ - kContext);
        begin_ = kContext;
      }
      const std::size_t wanted = begin_ + std::max(8 * kPart, 2 * (buffer_.size() - begin_));
      while (!done_ && buffer_.size() < wanted) done_ = !more(buffer_);
      const std::string_view rest = std::string_view(buffer_).substr(begin_);
      ends_ = rest.empty() ? std::vector<std::size_t>() : encoder_.cuts(rest, kPart);
      if (!done_) ends_.pop_back();    // the end of the buffer is not one of the document
      for (std::size_t& end : ends_) end += begin_;
      ready_ = 0;
    }
    const std::size_t end = ends_[ready_++], context = std::min(begin_, kContext);
    Piece piece{.text = buffer_.substr(begin_ - context, end - begin_ + context), .begin = context, .consumed = stream_->consumed()};
    piece.ends_document = done_ && ready_ == ends_.size();
    begin_ = end;
    return piece;
  }

 private:
  static constexpr std::size_t kContext = 64;

  const Encoder& encoder_;
  std::string buffer_;
  std::size_t begin_ = 0, ready_ = 0;
  std::vector<std::size_t> ends_;    // in buffer_; those before ready_ are done
  bool done_ = false;
};

class PieceEncoder {
 public:
  PieceEncoder(const std::string& path, const TextOptions& options) : path_(path), options_(options) {}

  Encoded operator()(const Piece& piece, bool lines) const {
    Encoded out;
    out.consumed = piece.consumed;
    if (lines) {
      encode_lines(piece, out);
      return out;
    }
    options_.encoder->encode_part(piece.text, piece.begin, out.ids);
    out.any_text = !out.ids.empty();
    check_ids(out.ids, 0, path_);
    if (piece.ends_document) end_document(out, false);
    return out;
  }

 private:
  void encode_lines(const Piece& piece, Encoded& out) const {
    const std::string_view all = piece.text;
    std::int64_t number = piece.first_line;
    for (std::size_t begin = 0; begin < all.size(); ++number) {
      const std::size_t end = std::min(all.find('\n', begin), all.size());
      const std::string_view line = trimmed(all.substr(begin, end - begin));
      begin = end + 1;
      if (!line.empty()) encode_line(line, fmt::format("{}:{}", path_, number), out);
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

  std::string path_;
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
  const std::string ending = text_ending(path);
  return ending == ".txt" || ending == ".jsonl";
}

TextProgress tokenize_text(const std::string& path, const TextOptions& options, TokenSink& sink, const std::atomic<bool>& stop,
                           const std::function<void(const TextProgress&)>& report) {
  SHEAF_CHECK(is_text(path) && options.encoder && options.threads > 0, "{}: not for the text pipeline", path);
  const bool lines = text_ending(path) == ".jsonl";
  std::unique_ptr<PieceReader> reader;
  if (lines)
    reader = std::make_unique<LineReader>(path);
  else
    reader = std::make_unique<DocumentReader>(path, *options.encoder);

  TextProgress progress;
  progress.all_bytes = reader->size();
  bool any_text = false;
  const PieceEncoder encode(path, options);
  OrderedWorkers<Piece, Encoded> workers(static_cast<std::size_t>(options.threads),
                                         [&](const Piece& piece) { return encode(piece, lines); });
  for (bool more = true; more || workers.size() > 0;) {
    if (stop.load()) throw Interrupted();
    if (more && workers.size() < 2 * workers.num_threads()) {
      std::optional<Piece> piece = reader->next();
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
