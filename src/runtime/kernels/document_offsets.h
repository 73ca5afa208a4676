#pragma once
// Device kernel that turns the ends of documents into what attention kernels for packed rows want: lengths and first elements.
#include <cstdint>

namespace sheaf {

// ends [b, c] as op attention takes them. Written, with n = b (c + 1) documents, those without tokens included:
//   lengths [n]               tokens of each
//   offsets [widths, n + 1]   per width w (elements of a token): first element of each document, then the end of the last
inline constexpr int kOffsetWidths = 8;
struct DocumentOffsets {
  std::int64_t b, c, s;    // rows, ends of a row, tokens of a row
  std::int64_t widths[kOffsetWidths];
};
// Returns the run-time library's error text, nullptr if all is well.
const char* document_offsets_device(std::int32_t* lengths, std::int64_t* offsets, const std::int32_t* ends, const DocumentOffsets& shape,
                                    void* stream);

}    // namespace sheaf
