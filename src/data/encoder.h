#pragma once
// Text to ids: a tokenizer.json, or bytes as they are. What the pipeline needs to know of either.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sheaf {

// Immutable: any number of threads may use one at once. Ids are appended to `ids`.
class Encoder {
 public:
  static std::unique_ptr<Encoder> bytes();                               // every byte is a token
  static std::unique_ptr<Encoder> tokenizer(const std::string& path);    // a tokenizer.json; UserError

  Encoder() = default;
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
  virtual ~Encoder() = default;

  virtual void encode(std::string_view document, std::vector<std::int32_t>& ids) const = 0;
  // Ends of parts of about part_bytes, the last the size: the ids of the parts, one after the other, are those of the document.
  virtual std::vector<std::size_t> cuts(std::string_view document, std::size_t part_bytes) const = 0;
  // Ids of document[begin, size). begin is 0 or a cut; what lies before it does not matter, but that something does.
  virtual void encode_part(std::string_view document, std::size_t begin, std::vector<std::int32_t>& ids) const = 0;
  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special) const = 0;

  virtual std::int64_t vocab_size() const = 0;    // every id is below it
  virtual std::string identity() const = 0;       // two encoders with the same give the same ids: for caches
  virtual const std::string& name() const = 0;    // for errors: the path, or "bytes"
};

}    // namespace sheaf
