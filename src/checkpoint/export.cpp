#include "checkpoint/export.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"

namespace sheaf {

Json to_json(const ModelRecord& model) {
  Json shapes = Json::array();    // of [name, shape]: an object of Json finds and adds keys one by one
  for (const auto& [name, shape] : model.shapes) shapes.push_back(Json::array({name, shape}));
  return {{"dtype", std::string(name(model.dtype))}, {"shapes", shapes}, {"config", model.config}};
}

ModelRecord model_of(const Checkpoint& checkpoint) {
  const std::string where = checkpoint.folder() + "/index.json";
  const auto found = checkpoint.meta().find("model");
  if (found == checkpoint.meta().end()) user_error("{}: does not say which model it holds; only a run can read it (--resume)", where);
  ModelRecord model;
  try {
    const auto dtype = dtype_from_name(found->at("dtype").get<std::string>());
    if (!dtype || !is_float(*dtype)) user_error("{}: its model has no dtype {}", where, found->at("dtype").dump());
    model.dtype = *dtype;
    model.config = found->at("config");
    if (!model.config.is_object()) user_error("{}: the config of its model is {}", where, json_type(model.config));
    for (const Json& entry : found->at("shapes")) model.shapes.emplace_back(entry.at(0).get<std::string>(), integers(entry.at(1), where));
  } catch (const Json::exception& error) {
    user_error("{}: its model is not described: {}", where, error.what());
  }
  return model;
}

void export_checkpoint(const Checkpoint& checkpoint, const std::string& folder, std::optional<DType> dtype,
                       const std::function<void(std::int64_t, std::int64_t)>& progress) {
  ModelRecord model = model_of(checkpoint);
  const DType target = dtype.value_or(model.dtype);
  set_dtype(model.config, target);
  std::vector<TensorToWrite> tensors;
  std::map<std::string, std::size_t> places;
  for (const auto& [name, shape] : model.shapes) places.emplace(name, places.size());
  std::vector<const Checkpoint::Tensor*> parameters(model.shapes.size());
  std::size_t found = 0;
  std::int64_t all = 0, done = 0;
  const auto bytes_of = [&](const Checkpoint::Tensor& tensor) {
    return checked_bytes(tensor.dtype, tensor.shape, fmt::format("{}: {}", checkpoint.folder(), quote(tensor.name)));
  };
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) {
    if (tensor.kind != "parameter") continue;
    const auto place = places.find(tensor.name);
    if (place == places.end()) user_error("{}: its model has no parameter {}", checkpoint.folder(), quote(tensor.name));
    const std::string where = fmt::format("{}: {}", checkpoint.folder(), quote(tensor.name));
    const auto& shape = model.shapes[place->second].second;
    if (checked_bytes(tensor.dtype, shape, where) != bytes_of(tensor) || !is_convertible(tensor.dtype, target))
      user_error("{} is {} {}, which is no {} {}", where, name(tensor.dtype), shape_text(tensor.shape), name(target), shape_text(shape));
    if (bytes_of(tensor) > checkpoint.bytes()) user_error("{} has {} bytes, all chunks together fewer", where, bytes_of(tensor));
    parameters[place->second] = &tensor, ++found;
    all += bytes_of(tensor);
  }
  if (found != model.shapes.size())
    user_error("{}: holds {} parameters, its model has {}", checkpoint.folder(), found, model.shapes.size());
  for (const auto& [name, shape] : model.shapes) tensors.push_back({name, target, shape});
  constexpr std::int64_t kBlockBytes = 1 << 26;
  HfWriter writer(folder, model.config, tensors, {.side_files_from = checkpoint.folder()});
  std::vector<std::byte> block;
  for (const Checkpoint::Tensor* tensor : parameters) {
    const std::int64_t element = size_bytes(tensor->dtype), count = bytes_of(*tensor) / element;
    for (std::int64_t begin = 0, end = 0; begin < count; begin = end) {
      end = std::min(count, begin + kBlockBytes / element);
      block.resize(static_cast<std::size_t>((end - begin) * element));
      std::byte* at = block.data();
      for (const Box& box : boxes_of_flat(whole_box(tensor->shape), begin, end)) {
        checkpoint.read(*tensor, box, at);
        at += num_elements(box) * element;
      }
      writer.write_part(tensor->name, begin, end - begin, tensor->dtype, block.data());
      done += (end - begin) * element;
      if (progress) progress(done, all);
    }
  }
  writer.finish();
}

}    // namespace sheaf
