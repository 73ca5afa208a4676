#include "checkpoint/export.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"

namespace sheaf {

Json to_json(const ModelRecord& model) {
  Json shapes = Json::array();    // of [name, shape]: an object of Json finds and adds keys one by one
  for (const auto& [name, shape] : model.shapes) shapes.push_back(Json::array({name, shape}));
  return {{"dtype", std::string(name(model.dtype))},
          {"experts", std::string(name(model.experts))},
          {"shapes", shapes},
          {"config", model.config}};
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
    if (found->contains("experts")) {    // else written before there were any
      const auto experts = experts_from_name(found->at("experts").get<std::string>());
      if (!experts) user_error("{}: its model has experts {}", where, found->at("experts").dump());
      model.experts = *experts;
    }
    model.config = found->at("config");
    if (!model.config.is_object()) user_error("{}: the config of its model is {}", where, json_type(model.config));
    for (const Json& entry : found->at("shapes")) model.shapes.push_back({entry.at(0).get<std::string>(), integers(entry.at(1), where)});
  } catch (const Json::exception& error) {
    user_error("{}: its model is not described: {}", where, error.what());
  }
  return model;
}

namespace {

// Of every parameter of the model the checkpoint's, found to be of its size.
std::vector<const Checkpoint::Tensor*> parameters_of(const Checkpoint& checkpoint, const ModelRecord& model, DType target) {
  std::map<std::string, std::size_t> places;
  for (const NamedShape& weight : model.shapes) places.emplace(weight.name, places.size());
  std::vector<const Checkpoint::Tensor*> out(model.shapes.size());
  std::size_t found = 0;
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) {
    if (tensor.kind != "parameter") continue;
    const auto place = places.find(tensor.name);
    if (place == places.end()) user_error("{}: its model has no parameter {}", checkpoint.folder(), quote(tensor.name));
    const std::string where = fmt::format("{}: {}", checkpoint.folder(), quote(tensor.name));
    const auto& shape = model.shapes[place->second].shape;
    const std::int64_t bytes = checked_bytes(tensor.dtype, tensor.shape, where);
    if (checked_bytes(tensor.dtype, shape, where) != bytes || !is_convertible(tensor.dtype, target))
      user_error("{} is {} {}, which is no {} {}", where, name(tensor.dtype), shape_text(tensor.shape), name(target), shape_text(shape));
    if (bytes > checkpoint.bytes()) user_error("{} has {} bytes, all chunks together fewer", where, bytes);
    out[place->second] = &tensor, ++found;
  }
  if (found != model.shapes.size())
    user_error("{}: holds {} parameters, its model has {}", checkpoint.folder(), found, model.shapes.size());
  return out;
}

std::vector<WeightPart> parts_of(const Checkpoint& checkpoint, const ModelRecord& model, const ExportOptions& options) {
  const auto type = model.config.find("model_type");
  const std::string model_type = type != model.config.end() && type->is_string() ? type->get<std::string>() : "";
  const Experts experts = options.experts.value_or(model.experts);
  if (options.experts && !has_experts(model.shapes)) user_error("{}: a {} model has no experts", checkpoint.folder(), model_type);
  if (experts != Experts::fused && (experts != Experts::separate || experts_of(model_type).front() != experts))
    user_error("{}: a {} model is not written with {} experts; they are always fused", checkpoint.folder(), model_type, name(experts));
  std::vector<WeightPart> parts = parts_to_write(model_type, experts, model.shapes, options.dtype.value_or(model.dtype));
  std::set<std::string_view> names;
  for (const WeightPart& part : parts)
    if (!names.insert(part.tensor.name).second) user_error("{}: two parameters are {}", checkpoint.folder(), quote(part.tensor.name));
  return parts;
}

}    // namespace

void export_checkpoint(const Checkpoint& checkpoint, const std::string& folder, const ExportOptions& options) {
  ModelRecord model = model_of(checkpoint);
  const DType target = options.dtype.value_or(model.dtype);
  const std::vector<const Checkpoint::Tensor*> parameters = parameters_of(checkpoint, model, target);
  const std::vector<WeightPart> parts = parts_of(checkpoint, model, options);
  std::int64_t all = 0, done = 0;
  for (const Checkpoint::Tensor* tensor : parameters) all += num_elements(tensor->shape) * size_bytes(tensor->dtype);
  set_dtype(model.config, target);
  constexpr std::int64_t kBlockBytes = 1 << 26;
  HfWriter writer(folder, model.config, tensors_of(parts), {.side_files_from = checkpoint.folder()});
  std::vector<std::byte> block;
  for (const WeightPart& part : parts) {
    const Checkpoint::Tensor& tensor = *parameters[part.weight];
    const std::int64_t element = size_bytes(tensor.dtype), count = num_elements(part.tensor.shape);
    for (std::int64_t begin = 0, end = 0; begin < count; begin = end) {
      end = std::min(count, begin + kBlockBytes / element);
      block.resize(static_cast<std::size_t>((end - begin) * element));
      std::byte* at = block.data();
      for (const Box& box : boxes_of_flat(whole_box(tensor.shape), part.first + begin, part.first + end)) {
        checkpoint.read(tensor, box, at);
        at += num_elements(box) * element;
      }
      writer.write_part(part.tensor.name, begin, end - begin, tensor.dtype, block.data());
      done += (end - begin) * element;
      if (options.progress) options.progress(done, all);
    }
  }
  writer.finish();
}

}    // namespace sheaf
