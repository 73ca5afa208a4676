#pragma once
// Where tokens go, document by document.
#include <cstdint>
#include <span>

namespace sheaf {

class TokenSink {
 public:
  TokenSink() = default;
  TokenSink(const TokenSink&) = delete;
  TokenSink& operator=(const TokenSink&) = delete;
  virtual ~TokenSink() = default;

  // More tokens of the document in hand. counts[i]: 1 if predicting ids[i] counts for the loss, else 0; empty: all do.
  virtual void append(std::span<const std::int32_t> ids, std::span<const std::uint8_t> counts = {}) = 0;
  virtual void end_document() = 0;
};

}    // namespace sheaf
