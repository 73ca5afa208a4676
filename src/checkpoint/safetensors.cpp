#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace sheaf {
namespace {

// The limit of the reference reader. Also what bounds the memory that a lying file can ask for.
constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::string_view kSupported = "F64, F32, F16, BF16, I64, I32, I16, U16, U8, BOOL";

// Not base's Json: ordered_json looks keys up one by one, and an index of 90,000 tensors would take half a minute. Strict: no comments.
using FastJson = nlohmann::json;

FastJson parse_strict(const char* begin, const char* end, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, FastJson::parse_event_t event, FastJson& value) {
    if (depth > 16) user_error("{}: nested too deeply", where);    // no header is; a hostile one would take 50 bytes of memory a bracket
    if (event == FastJson::parse_event_t::object_start) keys.emplace_back();
    if (event == FastJson::parse_event_t::object_end) keys.pop_back();
    if (event == FastJson::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      user_error("{}: {} is given twice", where, quote(value.get<std::string>()));
    return true;
  };
  try {
    return FastJson::parse(begin, end, check);
  } catch (const FastJson::exception& error) {
    std::string what = error.what();    // "[json.exception.parse_error.101] parse error at line 1, column 2: what is meant"
    if (const std::size_t bracket = what.find("] "); bracket != std::string::npos) what = what.substr(bracket + 2);
    user_error("{}: not JSON: {}", where, what.substr(0, 200));
  }
}

std::optional<std::int64_t> natural(const FastJson& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return static_cast<std::int64_t>(number);
}

const FastJson& field(const FastJson& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  if (found == entry.end()) user_error("{} has no {}", where, quote(key));
  return *found;
}

std::string short_text(const FastJson& value) {
  const std::string text = value.dump(-1, ' ', false, FastJson::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 80) + "...";
}

StoredTensor parse_entry(const std::string& path, const std::string& name, const FastJson& entry, std::span<const std::byte> data) {
  const std::string where = fmt::format("{}: tensor {}", path, quote(name));
  if (!entry.is_object()) user_error("{}: its header entry is {}, an object was wanted", where, short_text(entry));

  StoredTensor tensor{.name = name, .file = path};
  const FastJson& dtype = field(entry, "dtype", where);
  const auto known = dtype.is_string() ? dtype_from_safetensors(dtype.get<std::string>()) : std::nullopt;
  if (!known)
    user_error("{} has dtype {}; supported: {}{}", where, short_text(dtype), kSupported,
               dtype.is_string() && dtype.get<std::string>().starts_with("F8") ? "; make a folder in bf16 of it first" : "");
  tensor.dtype = *known;

  const FastJson& shape = field(entry, "shape", where);
  if (!shape.is_array()) user_error("{} has shape {}, a list of integers was wanted", where, short_text(shape));
  for (const FastJson& dim : shape) {
    const auto size = natural(dim);
    if (!size) user_error("{} has shape {}: {} is not a size", where, short_text(shape), short_text(dim));
    tensor.shape.push_back(*size);
  }
  const std::int64_t wanted = checked_bytes(tensor.dtype, tensor.shape, where);

  const FastJson& offsets = field(entry, "data_offsets", where);
  const bool pair = offsets.is_array() && offsets.size() == 2;
  const auto begin = pair ? natural(offsets[0]) : std::nullopt, end = pair ? natural(offsets[1]) : std::nullopt;
  if (!begin || !end || *begin > *end) user_error("{} has data_offsets {}, [begin, end] was wanted", where, short_text(offsets));
  const auto size = static_cast<std::int64_t>(data.size());
  if (*end > size)
    user_error("{} ends at byte {} of the data, but the file holds {} bytes of data: truncated, or a wrong header", where, *end, size);
  if (*end - *begin != wanted)
    user_error("{} has {} bytes, but {} of {} needs {}", where, *end - *begin, shape_text(tensor.shape), dtype.get<std::string>(), wanted);
  tensor.bytes = data.subspan(static_cast<std::size_t>(*begin), static_cast<std::size_t>(wanted));
  return tensor;
}

// Sorted by place, tensors must follow one another from the first byte of the data to the last.
void check_cover(const std::string& path, const std::vector<StoredTensor>& tensors, std::span<const std::byte> data) {
  const std::byte* reached = data.data();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& tensor = tensors[i];
    if (tensor.bytes.data() < reached) user_error("{}: tensors {} and {} overlap", path, quote(tensors[i - 1].name), quote(tensor.name));
    if (tensor.bytes.data() > reached)
      user_error("{}: {} bytes before tensor {} belong to no tensor", path, tensor.bytes.data() - reached, quote(tensor.name));
    reached = tensor.bytes.data() + tensor.bytes.size();
  }
  if (const auto rest = data.data() + data.size() - reached; rest > 0) user_error("{}: the last {} bytes belong to no tensor", path, rest);
}

}    // namespace

std::string safetensors_header(std::span<const TensorToWrite> tensors, const std::map<std::string, std::string>& metadata) {
  std::string json = fmt::format(R"({{"__metadata__":{})", FastJson(metadata).dump());
  std::int64_t end = 0;
  for (const TensorToWrite& t : tensors) {
    const std::int64_t begin = std::exchange(end, end + checked_bytes(t.dtype, t.shape, t.name));
    json += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", FastJson(t.name).dump(), safetensors_name(t.dtype),
                        fmt::join(t.shape, ","), begin, end);
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + json;
}

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::int64_t checked_bytes(DType dtype, std::span<const std::int64_t> shape, std::string_view where) {
  std::int64_t bytes = size_bytes(dtype);
  bool good = true;
  for (const std::int64_t dim : shape) good = good && dim >= 0 && !__builtin_mul_overflow(bytes, dim, &bytes);
  if (!good) user_error("{} has shape {}, which is no possible size", where, shape_text(shape));
  return bytes;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const auto all = file_.bytes();
  std::uint64_t length = 0;
  if (all.size() < sizeof(length)) user_error("{}: has {} bytes: not a safetensors file", path, all.size());
  std::memcpy(&length, all.data(), sizeof(length));
  if (length > kMaxHeader) user_error("{}: its header would have {} bytes: not a safetensors file", path, length);
  if (length > all.size() - sizeof(length))
    user_error("{}: its header should have {} bytes, but the file has only {}: truncated", path, length, all.size());
  const char* text = reinterpret_cast<const char*>(all.data()) + sizeof(length);
  const FastJson header = parse_strict(text, text + length, path + ": header");
  if (!header.is_object()) user_error("{}: its header is {}, an object was wanted", path, short_text(header));

  const auto data = all.subspan(sizeof(length) + length);
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(parse_entry(path, name, entry, data));
      continue;
    }
    if (!entry.is_object()) user_error("{}: __metadata__ is {}, an object was wanted", path, short_text(entry));
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) user_error("{}: __metadata__ {} is {}, a string was wanted", path, quote(key), short_text(value));
      metadata_[key] = value.get<std::string>();
    }
  }
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  check_cover(path, tensors_, data);
}

SafetensorsFolder::SafetensorsFolder(const std::string& folder) : folder_(folder) {
  const std::filesystem::path base(folder);
  const std::string single = base / "model.safetensors", index = base / "model.safetensors.index.json";
  std::error_code ignored;
  if (std::filesystem::exists(single, ignored)) {
    add(SafetensorsFile(single));
  } else if (std::filesystem::exists(index, ignored)) {
    read_index(index);
  } else {
    std::vector<std::string> others;
    for (const auto& entry : std::filesystem::directory_iterator(base, ignored))
      for (const auto* ending : {".safetensors", ".bin", ".pth", ".gguf"})
        if (entry.path().extension() == ending) others.push_back(entry.path().filename());
    std::sort(others.begin(), others.end());
    if (others.size() > 3) others.resize(3);
    user_error("{}: no weights: neither model.safetensors nor model.safetensors.index.json{}", folder,
               others.empty() ? "" : fmt::format(" (found {}, which is not read)", join(others, ", ")));
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < tensors_.size(); ++i)
    if (tensors_[i].name == tensors_[i - 1].name)
      user_error("{}: tensor {} is in two files: {} and {}", folder, quote(tensors_[i].name), tensors_[i - 1].file, tensors_[i].file);
}

void SafetensorsFolder::add(SafetensorsFile file) {
  tensors_.insert(tensors_.end(), file.tensors().begin(), file.tensors().end());
  files_.push_back(std::move(file));
}

void SafetensorsFolder::read_index(const std::string& index) {
  const std::string text = read_file(index);
  const FastJson json = parse_strict(text.data(), text.data() + text.size(), index);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object() || map->empty())
    user_error("{}: no weight_map; {{\"weight_map\": {{tensor: file}}}} was wanted", index);

  std::map<std::string, std::vector<std::string>> names_of;    // file -> tensors that it must hold
  for (const auto& [name, file] : map->items()) {
    const std::string text_of_file = file.is_string() ? file.get<std::string>() : "";
    if (text_of_file.empty() || text_of_file == ".." || text_of_file.find('/') != std::string::npos)
      user_error("{}: tensor {} is said to be in {}; the name of a file in this folder was wanted", index, quote(name), short_text(file));
    names_of[text_of_file].push_back(name);
  }
  for (const auto& [file, names] : names_of) {
    const std::string path = std::filesystem::path(folder_) / file;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) user_error("{}: names {}, which is missing", index, quote(file));
    SafetensorsFile shard(path);
    std::set<std::string_view> held;
    for (const StoredTensor& tensor : shard.tensors()) held.insert(tensor.name);
    for (const std::string& name : names)
      if (!held.contains(name)) user_error("{}: tensor {} is said to be in {}, which does not hold it", index, quote(name), quote(file));
    add(std::move(shard));
  }
}

const StoredTensor* SafetensorsFolder::find(std::string_view name) const {
  const auto at =
      std::lower_bound(tensors_.begin(), tensors_.end(), name, [](const StoredTensor& t, std::string_view n) { return t.name < n; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const StoredTensor& SafetensorsFolder::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const StoredTensor& tensor : tensors_) names.push_back(tensor.name);
  user_error("{}: no tensor {}{}", folder_, quote(name), did_you_mean(name, names));
}

}    // namespace sheaf
