#include <initializer_list>

#include "runtime/kernels/cuda/activation.h"
#include "runtime/kernels/cuda/packed.h"
#include "runtime/kernels/gated.h"

namespace sheaf {
namespace {

constexpr int kUnroll = 2;    // accesses of a thread to each tensor, all asked for before the first is computed with

// (gate, up) -> y, of one number of each tensor.
template <Activation kind, bool fast>
struct Glu {
  static constexpr int in = 2, out = 1;
  static __device__ void apply(const float (&x)[2], float (&y)[1]) { y[0] = activated<kind, fast>(x[0]).y * x[1]; }
};
// (gate, up, dy) -> dgate, dup
template <Activation kind, bool fast>
struct GluGrad {
  static constexpr int in = 3, out = 2;
  static __device__ void apply(const float (&x)[3], float (&y)[2]) {
    const Activated a = activated<kind, fast>(x[0]);
    y[0] = x[2] * x[1] * a.dy;
    y[1] = x[2] * a.y;
  }
};

template <class T, class F>
struct Tensors {
  const T* in[F::in];
  T* out[F::out];
  std::int64_t n, accesses;    // numbers of each; the first of them are taken 16 bytes at a time, what is behind one by one
  // Of several rows, in accesses: the width, and from a row to the next.
  unsigned width, in_pitch[F::in], out_pitch[F::out];
};

template <class T, class F, bool kGaps>
__global__ void __launch_bounds__(kBlock) elementwise(Tensors<T, F> t) {
  constexpr int n = kPacked<T>;
  const auto place = [&](std::int64_t at, unsigned pitch) {
    if constexpr (!kGaps) return at * n;
    const unsigned row = static_cast<unsigned>(at) / t.width;
    return (std::int64_t{row} * pitch + (static_cast<unsigned>(at) - row * t.width)) * n;
  };
  const std::int64_t first = std::int64_t{blockIdx.x} * kBlock * kUnroll + threadIdx.x;
  uint4 packed[kUnroll][F::in];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
    if (const std::int64_t at = first + u * kBlock; at < t.accesses)
#pragma unroll
      for (int k = 0; k < F::in; ++k) packed[u][k] = load_packed(t.in[k] + place(at, t.in_pitch[k]));
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
    if (const std::int64_t at = first + u * kBlock; at < t.accesses) {
      float in[F::in][n], out[F::out][n];
#pragma unroll
      for (int k = 0; k < F::in; ++k) unpack<T>(in[k], packed[u][k]);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        float x[F::in], y[F::out];
#pragma unroll
        for (int k = 0; k < F::in; ++k) x[k] = in[k][i];
        F::apply(x, y);
#pragma unroll
        for (int k = 0; k < F::out; ++k) out[k][i] = y[k];
      }
#pragma unroll
      for (int k = 0; k < F::out; ++k) store_packed(pack<T>(out[k]), t.out[k] + place(at, t.out_pitch[k]));
    }
  const std::int64_t thread = std::int64_t{blockIdx.x} * kBlock + threadIdx.x;
  for (std::int64_t i = t.accesses * n + thread; i < t.n; i += std::int64_t{gridDim.x} * kBlock) {
    float x[F::in], y[F::out];
#pragma unroll
    for (int k = 0; k < F::in; ++k) x[k] = to_float(t.in[k][i]);
    F::apply(x, y);
#pragma unroll
    for (int k = 0; k < F::out; ++k) assign(t.out[k][i], y[k]);
  }
}

template <class T, class F>
const char* launch(Tensors<T, F> t, void* stream) {
  if (t.n == 0) return nullptr;
  bool aligned = true;
  for (const T* p : t.in) aligned = aligned && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
  for (const T* p : t.out) aligned = aligned && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
  t.accesses = aligned ? t.n / kPacked<T> : 0;
  const unsigned blocks = num_blocks(t.n, kBlock * kUnroll * kPacked<T>);
  if (t.width == 0)
    elementwise<T, F, false><<<blocks, kBlock, 0, stream_of(stream)>>>(t);
  else if (aligned && t.accesses < std::int64_t{1} << 32)
    elementwise<T, F, true><<<blocks, kBlock, 0, stream_of(stream)>>>(t);
  else
    return "columns that do not begin on 16 bytes, or too many";
  return launch_error();
}
// Rows with gaps: which pitch is whose.
template <class T, class F>
Tensors<T, F> with_pitches(Tensors<T, F> t, const GluRows& rows, std::initializer_list<std::int64_t> in,
                           std::initializer_list<std::int64_t> out) {
  t.n = rows.rows * rows.width;
  if (rows.rows == 1) return t;
  t.width = static_cast<unsigned>(rows.width / kPacked<T>);
  for (int k = 0; k < F::in; ++k) t.in_pitch[k] = static_cast<unsigned>(in.begin()[k] / kPacked<T>);
  for (int k = 0; k < F::out; ++k) t.out_pitch[k] = static_cast<unsigned>(out.begin()[k] / kPacked<T>);
  return t;
}

// f(T, kind, fast) as constants of the compiler.
template <Activation kind, class F>
const char* with_type(FloatType type, F&& f) {
  return type == FloatType::fp32 ? f.template operator()<float, kind, false>() : f.template operator()<std::uint16_t, kind, true>();
}
template <class F>
const char* with_constants(FloatType type, Activation activation, F&& f) {
  switch (activation) {
    case Activation::silu:
      return with_type<Activation::silu>(type, f);
    case Activation::gelu:
      return with_type<Activation::gelu>(type, f);
    case Activation::gelu_tanh:
      return with_type<Activation::gelu_tanh>(type, f);
    default:
      return "no such activation of two tensors";
  }
}

}    // namespace

const char* glu_device(void* y, const void* gate, const void* up, const GluRows& rows, void* stream) {
  return with_constants(rows.type, rows.activation, [&]<class T, Activation kind, bool fast>() {
    const Tensors<T, Glu<kind, fast>> t = {{static_cast<const T*>(gate), static_cast<const T*>(up)}, {static_cast<T*>(y)}};
    return launch(with_pitches(t, rows, {rows.gate_pitch, rows.up_pitch}, {rows.width}), stream);
  });
}

const char* glu_grad_device(void* dgate, void* dup, const void* gate, const void* up, const void* dy, const GluRows& rows, void* stream) {
  return with_constants(rows.type, rows.activation, [&]<class T, Activation kind, bool fast>() {
    const Tensors<T, GluGrad<kind, fast>> t = {{static_cast<const T*>(gate), static_cast<const T*>(up), static_cast<const T*>(dy)},
                                               {static_cast<T*>(dgate), static_cast<T*>(dup)}};
    return launch(with_pitches(t, rows, {rows.gate_pitch, rows.up_pitch, rows.width}, {rows.dgate_pitch, rows.dup_pitch}), stream);
  });
}

}    // namespace sheaf
