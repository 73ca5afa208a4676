#pragma once
// What the parts of a decoder are written with: weights by HF's names, linear maps, norms. And the parts.
//
// Letters: b rows, s positions, k hidden, h kv heads, r query heads per kv head, d head dim, i intermediate, v vocab, c documents,
// e experts, m intermediate of an expert, g the pair of gate and up.
#include "models/decoder.h"

namespace sheaf {

class Parts {
 public:
  Parts(Builder& builder, const ModelConfig& config) : b(builder), c(config) {}

  // A weight; `in_file`: its shape in HF's file where that differs.
  Value parameter(const std::string& name, const Shape& shape, const char* init, const Shape& in_file);
  Value parameter(const std::string& name, const Shape& shape, const char* init) { return parameter(name, shape, init, shape); }
  // One that is kept in fp32, whatever the compute dtype; not trained: a buffer.
  Value parameter_fp32(const std::string& name, const Shape& shape, const char* init, const Shape& in_file, bool trained = true);
  // x times the weight [out.., in..] over the dims `in`, plus a bias [out..].
  Value linear(const char* rule, Value x, const std::string& name, const Shape& out, const Shape& in, bool bias);
  // Over the last dims of x, which `shape` gives.
  Value norm(Value x, const std::string& name, const Shape& shape, double eps);
  Value norm(Value x, const std::string& name) { return norm(x, name, {c.hidden}, c.rms_eps); }
  Value activate(Value x);
  Value to_compute(Value x);    // cast, if need be
  Value to_fp32(Value x);

  Builder& b;
  const ModelConfig& c;

 private:
  Value in_file(Value v, const std::string& name, const Shape& shape, const Shape& file);
};

// Of a micro-batch, for all layers.
struct Positions {
  Value cos, sin;
  Value ends;           // of documents; absent: a row is one
  Value chunk_ends;     // of chunks and documents; absent: no layer is chunked
  Value temperature;    // fp32 [s], for queries of layers without rope; absent: 1
};
Positions write_positions(Builder& b, const ModelConfig& config, const ModelShape& shape);

Value write_attention(Parts& parts, Value x_bsk, const std::string& prefix, const LayerConfig& layer, const Positions& positions);
Value write_mlp(Parts& parts, Value x_bsk, const std::string& prefix, std::int64_t intermediate);

MoeValues write_moe(Parts& parts, Value x_bsk, const std::string& prefix);

}    // namespace sheaf
