#include "checkpoint/weight_reader.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"

namespace sheaf {
namespace {

// A matrix [rows, columns] of a file into [columns, rows].
void decode_transposed(DType dtype, const std::byte* from, std::int64_t rows, std::int64_t columns, float* to) {
  constexpr std::int64_t kTile = 16;    // rows at a time: what is written is whole cache lines
  std::vector<float> tile(static_cast<std::size_t>(kTile * columns));
  for (std::int64_t row = 0; row < rows; row += kTile) {
    const std::int64_t n = std::min(kTile, rows - row);
    convert(dtype, from + row * columns * size_bytes(dtype), DType::fp32, tile.data(), n * columns);
    for (std::int64_t c = 0; c < columns; ++c)
      for (std::int64_t r = 0; r < n; ++r) to[c * rows + row + r] = tile[static_cast<std::size_t>(r * columns + c)];
  }
}

// The OCP format: 16 bytes are 32 numbers of a sign, two bits of exponent and one of mantissa, the low half of a byte before the high one;
// a byte is their scale, a power of two. [rows, columns] into [columns, rows].
void decode_mxfp4(const std::byte* blocks, const std::byte* scales, std::int64_t rows, std::int64_t columns, float* to) {
  constexpr std::array<float, 16> kNumbers = {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0f, -0.5, -1, -1.5, -2, -3, -4, -6};
  const std::int64_t num_blocks = columns / 32;
  for (std::int64_t b = 0; b < num_blocks; ++b)
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::byte* const block = blocks + (row * num_blocks + b) * 16;
      const float scale = std::ldexp(1.0f, std::to_integer<int>(scales[row * num_blocks + b]) - 127);
      float* const out = to + b * 32 * rows + row;
      for (std::int64_t i = 0; i < 16; ++i) {
        const auto two = std::to_integer<std::size_t>(block[i]);
        out[2 * i * rows] = kNumbers[two & 15] * scale;
        out[(2 * i + 1) * rows] = kNumbers[two >> 4] * scale;
      }
    }
}

}    // namespace

WeightReader::WeightReader(const SafetensorsFolder& folder, std::string_view model_type, std::span<const NamedShape> weights,
                           const std::function<bool(std::string_view)>& ignored)
    : experts_(find_experts(folder, model_type, weights)) {
  std::vector<NamedShape> expected;
  for (const NamedShape& weight : weights)
    for (NamedShape& tensor : file_tensors(model_type, experts_, weight).tensors) expected.push_back(std::move(tensor));
  check_tensors(folder, expected, ignored);
  for (const NamedShape& weight : weights) {
    const FileTensors files = file_tensors(model_type, experts_, weight);
    Source& source = sources_.emplace_back(Source{.tensors = {}, .form = files.form});
    if (weight.shape.size() == 3) source.rows = weight.shape[2], source.columns = weight.shape[1];
    for (const NamedShape& tensor : files.tensors) {
      const StoredTensor& stored = *source.tensors.emplace_back(&folder.at(tensor.name));
      if (files.form == Experts::mxfp4 ? stored.dtype != DType::u8 : !is_convertible(stored.dtype, DType::fp32))
        user_error("{}: tensor '{}' is {}; wanted {}", folder.folder(), stored.name, sheaf::name(stored.dtype),
                   files.form == Experts::mxfp4 ? "u8" : "bf16, fp16 or fp32");
    }
  }
}

const float* WeightReader::expert(std::size_t weight, std::int64_t e) {
  if (decoded_is_ == std::pair(weight, e)) return decoded_.data();
  const Source& source = sources_[weight];
  const std::int64_t count = source.rows * source.columns;
  decoded_.resize(static_cast<std::size_t>(count));
  const StoredTensor& tensor = *source.tensors[0];
  if (source.form == Experts::transposed) {
    decode_transposed(tensor.dtype, tensor.bytes.data() + e * count * size_bytes(tensor.dtype), source.rows, source.columns,
                      decoded_.data());
  } else {
    decode_mxfp4(tensor.bytes.data() + e * count / 2, source.tensors[1]->bytes.data() + e * count / 32, source.rows, source.columns,
                 decoded_.data());
  }
  decoded_is_ = {weight, e};
  return decoded_.data();
}

void WeightReader::read(std::size_t weight, std::int64_t first, std::int64_t count, float* to) {
  const Source& source = sources_[weight];
  const bool decodes = source.form == Experts::transposed || source.form == Experts::mxfp4;
  const std::int64_t part = decodes ? source.rows * source.columns : source.tensors[0]->count();    // elements of each: all are alike
  for (std::int64_t done = 0, n = 0; done < count; done += n) {
    const std::int64_t index = (first + done) / part, at = (first + done) % part;
    n = std::min(count - done, part - at);
    if (decodes) {
      std::copy_n(expert(weight, index) + at, n, to + done);
      continue;
    }
    const StoredTensor& tensor = *source.tensors[static_cast<std::size_t>(index)];
    convert(tensor.dtype, tensor.bytes.data() + at * size_bytes(tensor.dtype), DType::fp32, to + done, n);
  }
}

}    // namespace sheaf
