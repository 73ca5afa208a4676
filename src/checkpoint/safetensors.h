#pragma once
// Reads safetensors files by memory mapping. A file is validated as a whole when it is opened: afterwards every span lies inside the
// file and has exactly the bytes of its shape. Format: u64 header length, JSON header {name: {dtype, shape, data_offsets: [begin, end)}},
// then the data, which the tensors cover without hole or overlap; row-major, little-endian, at no particular alignment.
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"

namespace sheaf {

struct StoredTensor {
  std::string name;
  DType dtype = DType::fp32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;    // lives as long as the file object
  std::string file;                    // for errors

  std::int64_t count() const { return static_cast<std::int64_t>(bytes.size()) / size_bytes(dtype); }
};

struct NamedShape {
  std::string name;
  std::vector<std::int64_t> shape;
};

// "[2, 3]"
std::string shape_text(std::span<const std::int64_t> shape);
// Number of bytes; throws UserError, starting with `where`, on a negative dim or a product beyond int64.
std::int64_t checked_bytes(DType dtype, std::span<const std::int64_t> shape, std::string_view where);

struct TensorToWrite {
  std::string name;
  DType dtype = DType::fp32;    // in the file
  std::vector<std::int64_t> shape;
};
// The first bytes of a file that holds these tensors one after the other: length and JSON, a multiple of 8 bytes.
std::string safetensors_header(std::span<const TensorToWrite> tensors, const std::map<std::string, std::string>& metadata = {});

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);    // throws UserError that names the file and, where there is one, the tensor

  const std::string& path() const { return file_.path(); }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }    // in file order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  void forget() const { file_.forget(); }

 private:
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// All tensors of a folder: model.safetensors, or the shards that model.safetensors.index.json names. Where both are, the single file
// is taken, as transformers does.
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::string& folder);

  std::span<const StoredTensor> tensors() const { return tensors_; }    // sorted by name
  const StoredTensor* find(std::string_view name) const;                // nullptr: none
  const StoredTensor& at(std::string_view name) const;                  // UserError that names the nearest tensor
  const std::string& folder() const { return folder_; }

 private:
  void add(SafetensorsFile file);
  void read_index(const std::string& index);

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::vector<StoredTensor> tensors_;
};

}    // namespace sheaf
