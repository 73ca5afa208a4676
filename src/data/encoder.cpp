#include "data/encoder.h"

#include "data/tokenizer/tokenizer.h"

namespace sheaf {
namespace {

class ByteEncoder : public Encoder {
 public:
  void encode(std::string_view document, std::vector<std::int32_t>& ids) const override { encode_part(document, 0, ids); }
  std::vector<std::size_t> cuts(std::string_view document, std::size_t part_bytes) const override {
    std::vector<std::size_t> ends;
    for (std::size_t end = part_bytes; end < document.size(); end += part_bytes) ends.push_back(end);
    ends.push_back(document.size());
    return ends;
  }
  void encode_part(std::string_view document, std::size_t begin, std::vector<std::int32_t>& ids) const override {
    const auto part = document.substr(begin);
    ids.insert(ids.end(), reinterpret_cast<const unsigned char*>(part.data()),
               reinterpret_cast<const unsigned char*>(part.data() + part.size()));
  }
  std::string decode(std::span<const std::int32_t> ids, bool) const override {
    std::string text;
    for (const std::int32_t id : ids) text += static_cast<char>(id);
    return text;
  }
  std::int64_t vocab_size() const override { return 256; }
  std::string identity() const override { return name_; }
  const std::string& name() const override { return name_; }

 private:
  std::string name_ = "bytes";
};

class TokenizerEncoder : public Encoder {
 public:
  explicit TokenizerEncoder(const std::string& path) : path_(path), tokenizer_(Tokenizer::read(path)) {}

  void encode(std::string_view document, std::vector<std::int32_t>& ids) const override { tokenizer_->encode(document, ids); }
  std::vector<std::size_t> cuts(std::string_view document, std::size_t part_bytes) const override {
    return tokenizer_->cuts(document, part_bytes);
  }
  void encode_part(std::string_view document, std::size_t begin, std::vector<std::int32_t>& ids) const override {
    tokenizer_->encode_part(document, begin, document.size(), ids);
  }
  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override { return tokenizer_->decode(ids, skip_special); }
  std::int64_t vocab_size() const override { return tokenizer_->vocab_size(); }
  std::string identity() const override { return tokenizer_->hash(); }
  const std::string& name() const override { return path_; }

 private:
  std::string path_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

}    // namespace

std::unique_ptr<Encoder> Encoder::bytes() { return std::make_unique<ByteEncoder>(); }
std::unique_ptr<Encoder> Encoder::tokenizer(const std::string& path) { return std::make_unique<TokenizerEncoder>(path); }

}    // namespace sheaf
