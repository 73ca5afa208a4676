#include "runtime/kernels/cuda/attention_cudnn.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <cudnn_frontend.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <unordered_map>

#include "runtime/gpu_scratch.h"
#include "runtime/kernels/attention_sinks.h"
#include "runtime/kernels/cuda/row_support.h"
#include "runtime/kernels/document_offsets.h"

namespace sheaf {
namespace {

namespace fe = cudnn_frontend;
using fe::graph::Tensor_attributes;
using TensorPtr = std::shared_ptr<Tensor_attributes>;

enum Uid : std::int64_t { kQ = 1, kK, kV, kO, kLse, kDy, kDq, kDk, kDv, kLengths, kSinks, kOffsets };    // kOffsets + w: of width w

// Elements from a token to the next of each tensor. That is where documents begin, too, for which cuDNN takes an offset per tensor, not one
// per token. Of o and dy, and of lse, which have no gaps.
enum Width { kWidthQ, kWidthK, kWidthV, kWidthO, kWidthLse, kWidthDq, kWidthDk, kWidthDv };
static_assert(kWidthDv + 1 == kOffsetWidths);

// All that a plan depends on. Heads: cuDNN's query head h = j r + i is our (j, i); it serves grouped heads in the same order.
struct Key {
  std::int64_t b, s, u, hk, r, d, e, window;         // window 0: none
  std::array<std::int64_t, kOffsetWidths> widths;    // by Width
  std::int64_t ends;                                 // of documents, a row; 0: rows are dense
  double scale;
  at::ScalarType dtype;
  bool causal, backward, deterministic, sinks;    // sinks: that cuDNN knows of them
  int device;
  auto operator<=>(const Key&) const = default;

  std::int64_t h() const { return hk * r; }
  // cuDNN's batch: rows, or documents of whatever length up to s.
  std::int64_t batch() const { return ends > 0 ? b * (ends + 1) : b; }
  // Gradients lie as what they are of, and begin with it, as a rule: then they have none of their own.
  bool has_offsets(int w) const {
    const auto i = static_cast<std::size_t>(w);
    return w < kWidthDq || (backward && widths[i] != widths[i - kWidthDq]);
  }
  std::string text() const {
    return fmt::format(
        "attention{} {} b={} s={} u={} heads={}/{} head_dim={}/{} documents={} causal={} window={} scale={} sinks={} deterministic={}",
        backward ? "_grad" : "", dtype == at::kHalf ? "fp16" : "bf16", b, s, u, h(), hk, d, e, ends, causal, window, scale, sinks,
        deterministic);
  }
};

Key key_of(const Args& a, bool backward, bool deterministic) {
  const at::Tensor &q = a.in[0], &k = a.in[1], &v = a.in[2];
  const std::int64_t window = a.attrs.integer("window");
  const at::Tensor& ends = a.in[backward ? 6 : 3];
  std::array<std::int64_t, kOffsetWidths> widths = {pitch(q), pitch(k), pitch(v), q.size(2) * q.size(3) * v.size(3), q.size(2) * q.size(3)};
  for (std::size_t i = 0; backward && i < 3; ++i) widths[kWidthDq + i] = pitch(a.out[i]);
  if (backward && ends.defined()) widths[kWidthDv] = width_without_gaps(a.out[2]);    // run_grad
  return {.b = q.size(0),
          .s = q.size(1),
          .u = k.size(1),
          .hk = q.size(2),
          .r = q.size(3),
          .d = q.size(4),
          .e = v.size(3),
          .window = window < k.size(1) ? window : 0,
          .widths = widths,
          .ends = ends.defined() ? ends.size(1) : 0,
          .scale = a.attrs.number("scale"),
          .dtype = q.scalar_type(),
          .causal = a.attrs.flag("causal"),
          .backward = backward,
          .deterministic = deterministic,
          // With documents it takes them too, at a tenth of its speed.
          .sinks = !backward && a.in[4].defined() && !ends.defined(),
          .device = q.device().index()};
}

struct Plan {
  fe::graph::Graph graph;
  std::int64_t workspace_bytes = 0;
};

// [b, tokens, heads, channels] in memory, [b, heads, tokens, channels] in cuDNN's words: no copy.
struct Layout {
  std::vector<std::int64_t> dim, stride;
};
Layout layout(std::int64_t b, std::int64_t tokens, std::int64_t heads, std::int64_t channels, std::int64_t width) {
  return {{b, heads, tokens, channels}, {tokens * width, channels, width, 1}};
}

// With documents: their lengths, and per width where they begin. Without: all empty.
struct Ragged {
  TensorPtr lengths, offsets[kOffsetWidths];

  Ragged(fe::graph::Graph& graph, const Key& key) {
    if (key.ends == 0) return;
    const auto integers = [&](std::int64_t uid, std::int64_t n, fe::DataType_t type) {
      return graph.tensor(Tensor_attributes().set_uid(uid).set_dim({n, 1, 1, 1}).set_stride({1, 1, 1, 1}).set_data_type(type));
    };
    lengths = integers(kLengths, key.batch(), fe::DataType_t::INT32);
    for (int w = 0; w < kOffsetWidths; ++w)
      offsets[w] = key.has_offsets(w) ? integers(kOffsets + w, key.batch() + 1, fe::DataType_t::INT64) : offsets[w % kWidthDq];
  }
};

TensorPtr input(fe::graph::Graph& graph, Uid uid, const Layout& l, const TensorPtr& offset) {
  auto attributes = Tensor_attributes().set_uid(uid).set_dim(l.dim).set_stride(l.stride);
  if (offset) attributes.set_ragged_offset(offset);
  return graph.tensor(attributes);
}
void output(const TensorPtr& tensor, Uid uid, const Layout& l, const TensorPtr& offset) {
  tensor->set_output(true).set_uid(uid).set_dim(l.dim).set_stride(l.stride);
  if (offset) tensor->set_ragged_offset(offset);
}

template <class Attributes>
void describe_mask(Attributes& attributes, const Key& key, const Ragged& ragged) {
  if (ragged.lengths) attributes.set_padding_mask(true).set_seq_len_q(ragged.lengths).set_seq_len_kv(ragged.lengths);
  attributes.set_attn_scale(static_cast<float>(key.scale)).set_causal_mask(key.causal);    // aligned top left, as is our op
  // cuDNN keeps what satisfies column + bound > row: our u > s - window.
  if (key.window > 0) attributes.set_diagonal_band_left_bound(static_cast<int>(key.window));
}

void describe(fe::graph::Graph& graph, const Key& key) {
  const auto type = key.dtype == at::kHalf ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16;
  graph.set_io_data_type(type).set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
  const std::int64_t b = key.batch(), h = key.h();
  const auto of_q = [&](Width w) { return layout(b, key.s, h, key.d, key.widths[w]); };
  const auto of_k = [&](Width w) { return layout(b, key.u, key.hk, key.d, key.widths[w]); };
  const auto of_v = [&](Width w) { return layout(b, key.u, key.hk, key.e, key.widths[w]); };
  const Layout lo = layout(b, key.s, h, key.e, key.widths[kWidthO]);
  const Layout lse_in_order = {{b, h, key.s, 1}, {key.s * h, 1, h, 1}}, lse_by_head = {{b, h, key.s, 1}, {h * key.s, key.s, 1, 1}};
  const Ragged ragged(graph, key);
  const auto& offset = ragged.offsets;
  const TensorPtr q = input(graph, kQ, of_q(kWidthQ), offset[kWidthQ]), k = input(graph, kK, of_k(kWidthK), offset[kWidthK]),
                  v = input(graph, kV, of_v(kWidthV), offset[kWidthV]);
  if (!key.backward) {
    auto attributes = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true);
    describe_mask(attributes, key, ragged);
    if (key.sinks)
      attributes.set_sink_token(graph.tensor(
          Tensor_attributes().set_uid(kSinks).set_dim({1, h, 1, 1}).set_stride({h, 1, 1, 1}).set_data_type(fe::DataType_t::FLOAT)));
    const auto [o, lse] = graph.sdpa(q, k, v, attributes);
    output(o, kO, lo, offset[kWidthO]);
    // Written as our [b, s, hk, r]: cuDNN honours these strides from 9.12 on, and refuses the graph before.
    output(lse, kLse, lse_in_order, offset[kWidthLse]);
    lse->set_data_type(fe::DataType_t::FLOAT);
    return;
  }
  const TensorPtr o = input(graph, kO, lo, offset[kWidthO]), dy = input(graph, kDy, lo, offset[kWidthO]);
  // Dense rows are read as [b, h, s] only: other strides need cuDNN 9.26.
  const TensorPtr lse = input(graph, kLse, key.ends > 0 ? lse_in_order : lse_by_head, offset[kWidthLse]);
  lse->set_data_type(fe::DataType_t::FLOAT);
  auto attributes = fe::graph::SDPA_backward_attributes().set_name("attention_grad").set_deterministic_algorithm(key.deterministic);
  describe_mask(attributes, key, ragged);
  if (key.ends > 0) attributes.set_max_total_seq_len_q(key.b * key.s).set_max_total_seq_len_kv(key.b * key.u);
  const auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, o, dy, lse, attributes);
  output(dq, kDq, of_q(kWidthDq), offset[kWidthDq]);
  output(dk, kDk, of_k(kWidthDk), offset[kWidthDk]);
  output(dv, kDv, of_v(kWidthDv), offset[kWidthDv]);
}

// Per thread, since neither a handle nor a graph may be used by two at once: ranks are threads. Never destroyed: at the end of a thread or
// of the process CUDA may be gone already.
struct Library {
  std::map<int, cudnnHandle_t> handles;    // by device
  std::map<Key, std::unique_ptr<Plan>> plans;
};
Library& library() {
  thread_local Library& mine = *new Library;
  return mine;
}

// With the thread's current stream set.
cudnnHandle_t handle(int device) {
  cudnnHandle_t& handle = library().handles[device];
  if (!handle) {
    const cudnnStatus_t status = cudnnCreate(&handle);
    if (status != CUDNN_STATUS_SUCCESS) user_error("cuDNN does not start on GPU {}: {}", device, cudnnGetErrorString(status));
  }
  const cudnnStatus_t status = cudnnSetStream(handle, c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream());
  SHEAF_CHECK(status == CUDNN_STATUS_SUCCESS, "cudnnSetStream: {}", cudnnGetErrorString(status));
  return handle;
}

const Plan& plan(const Key& key, cudnnHandle_t handle) {
  std::unique_ptr<Plan>& plan = library().plans[key];
  if (plan) return *plan;
  auto made = std::make_unique<Plan>();
  describe(made->graph, key);
  const auto refuse = [&](fe::error_t error) {
    user_error("{}: cuDNN {} has no kernel for it here: {}", key.text(), cudnnGetVersion(), error.get_message());
  };
  if (const fe::error_t error = made->graph.build(handle, {fe::HeurMode_t::A}); error.is_bad()) refuse(error);
  if (const fe::error_t error = made->graph.get_workspace_size(made->workspace_bytes); error.is_bad()) refuse(error);
  plan = std::move(made);
  return *plan;
}

void run(const Key& key, const std::vector<std::pair<Uid, at::Tensor>>& tensors, const at::Tensor& ends) {
  const cudnnHandle_t h = handle(key.device);
  const Plan& p = plan(key, h);
  std::unordered_map<std::int64_t, void*> pointers;
  for (const auto& [uid, tensor] : tensors) {
    const bool may_have_gaps = uid == kQ || uid == kK || uid == kV || uid == kDq || uid == kDk || uid == kDv;
    SHEAF_CHECK(may_have_gaps ? has_whole_tokens(tensor) : tensor.is_contiguous(), "{}: tensor {} has gaps", key.text(),
                static_cast<int>(uid));
    pointers[uid] = tensor.data_ptr();
  }
  at::Tensor lengths, offsets;
  if (key.ends > 0) {
    const auto options = ends.options();
    lengths = at::empty({key.batch()}, options.dtype(at::kInt));
    offsets = at::empty({kOffsetWidths, key.batch() + 1}, options.dtype(at::kLong));
    DocumentOffsets shape{key.b, key.ends, key.s, {}};
    std::ranges::copy(key.widths, shape.widths);
    check(document_offsets_device(lengths.data_ptr<std::int32_t>(), offsets.data_ptr<std::int64_t>(), ends.const_data_ptr<std::int32_t>(),
                                  shape, current_stream()),
          "document_offsets");
    pointers[kLengths] = lengths.data_ptr();
    for (int w = 0; w < kOffsetWidths; ++w)
      if (key.has_offsets(w)) pointers[kOffsets + w] = offsets.select(0, w).data_ptr();
  }
  // From the row's scratch slot. The stream orders its next use after this one.
  const at::Tensor workspace = at::empty({p.workspace_bytes}, tensors[0].second.options().dtype(at::kByte));
  fe::error_t error = p.graph.execute(h, pointers, workspace.data_ptr());
  SHEAF_CHECK(error.is_good(), "{}: {}", key.text(), error.get_message());
}

SinkRows sink_rows(const Key& key, const at::Tensor& o, const at::Tensor& sinks) {
  return {.rows = key.b * key.s, .heads = key.h(), .e = key.e, .type = float_type(o), .sink_type = float_type(sinks)};
}

void run_grad(const Args& a, bool deterministic) {
  const Key key = key_of(a, true, deterministic);
  const bool documents = key.ends > 0;
  const at::Tensor lse = documents ? a.in[4] : a.in[4].permute({0, 2, 3, 1}).contiguous();    // [b, hk, r, s]
  // With documents cuDNN sums in fp32 as far apart as its results lie, for GQA times the group: dv comes without gaps, and is copied.
  const at::Tensor dv = documents && has_gaps(a.out[2]) ? at::empty(a.out[2].sizes(), a.out[2].options()) : a.out[2];
  const std::pair<Uid, at::Tensor> tensors[] = {{kQ, a.in[0]},  {kK, a.in[1]},   {kV, a.in[2]},   {kO, a.in[3]}, {kLse, lse},
                                                {kDy, a.in[5]}, {kDq, a.out[0]}, {kDk, a.out[1]}, {kDv, dv}};
  // Of rows `first` and so many more.
  const auto run_rows = [&](std::int64_t first, std::int64_t rows) {
    Key some = key;
    some.b = rows;
    std::vector<std::pair<Uid, at::Tensor>> pieces;
    for (const auto& [uid, tensor] : tensors) pieces.emplace_back(uid, tensor.narrow(0, first, rows));
    run(some, pieces, documents ? a.in[6].narrow(0, first, rows) : at::Tensor());
  };
  // Deterministic, its sums for documents are so large that rows take turns.
  const std::int64_t at_once = documents && deterministic ? 1 : key.b;
  for (std::int64_t first = 0; first < key.b; first += at_once) run_rows(first, at_once);
  if (!dv.is_same(a.out[2])) a.out[2].copy_(dv);
  const at::Tensor &o = a.in[3], &sinks = a.in[7];
  if (!sinks.defined()) return;
  const SinkRows rows = sink_rows(key, o, sinks);
  const at::Tensor parts = at::empty({rows.heads, attention_sinks_parts(rows)}, a.out[3].options());
  check(attention_sinks_grad_device(a.out[3].data_ptr<float>(), parts.data_ptr<float>(), a.in[5].const_data_ptr(), o.const_data_ptr(),
                                    a.in[4].const_data_ptr<float>(), sinks.const_data_ptr(), rows, current_stream()),
        "attention_sinks_grad");
}

// Of q and k, and of v. Those of MLA (DeepSeek) are one case of its own: cuDNN 9.19 has plans for it on Hopper.
bool takes_head_dims(std::int64_t d, std::int64_t e) {
  const auto plain = [](std::int64_t n) { return n > 0 && n % 8 == 0 && n <= 128; };
  return (plain(d) && plain(e)) || (d == 192 && e == 128);
}

// `optional`: the first of ends, sinks.
bool takes(const Attrs& attrs, const Types& in, std::size_t optional) {
  const Type *ends = in[optional], *sinks = in[optional + 1];
  if ((ends && ends->dtype != DType::i32) || (sinks && sinks->dtype != DType::fp32 && sinks->dtype != in[0]->dtype)) return false;
  for (std::size_t i = 0; i < optional; ++i)
    if (in[i]->dtype != in[0]->dtype && in[i]->dtype != DType::fp32) return false;    // lse is fp32
  const Type &q = *in[0], &k = *in[1], &v = *in[2];
  if (!is_half(q) || k.dtype != q.dtype || v.dtype != q.dtype) return false;
  if (!takes_head_dims(q.shape[4], v.shape[3])) return false;
  const std::int64_t s = q.shape[1], u = k.shape[1];
  const bool causal = attrs.flag("causal"), window = attrs.integer("window") > 0;
  return s > 1 && u > 1 && num_elements(q.shape) > 0 && (s == u || !causal) && (causal || !window);
}

}    // namespace

bool cudnn_takes_attention(const Attrs& attrs, const Types& in) { return takes(attrs, in, 3); }
bool cudnn_takes_attention_grad(const Attrs& attrs, const Types& in) { return takes(attrs, in, 6); }
bool cudnn_takes_attention_grad_deterministic(const Attrs& attrs, const Types& in) {
  constexpr std::int64_t kMost = std::int64_t{16} << 30;
  return takes(attrs, in, 6) && (!in[6] || attention_grad_scratch(in, true) <= kMost);
}

void cudnn_attention(const Args& a) {
  const Key key = key_of(a, false, false);
  const at::Tensor &o = a.out[0], &lse = a.out[1], &sinks = a.in[4];
  std::vector<std::pair<Uid, at::Tensor>> tensors = {{kQ, a.in[0]}, {kK, a.in[1]}, {kV, a.in[2]}, {kO, o}, {kLse, lse}};
  if (key.sinks) tensors.emplace_back(kSinks, sinks.to(at::kFloat));
  run(key, tensors, a.in[3]);
  if (!sinks.defined() || key.sinks) return;
  check(attention_sinks_device(o.data_ptr(), lse.data_ptr<float>(), sinks.const_data_ptr(), sink_rows(key, o, sinks), current_stream()),
        "attention_sinks");
}
void cudnn_attention_grad(const Args& a) { run_grad(a, false); }
void cudnn_attention_grad_deterministic(const Args& a) { run_grad(a, true); }

}    // namespace sheaf
