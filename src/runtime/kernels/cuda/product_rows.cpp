// CUDA rows of einsum, einsum_add, einsum_each and einsum_sum: 16-bit matrices whose product, in 16 bits or fp32, is written where it
// belongs or added to what is there by the product itself. Several products are one where their matrices lie side by side.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <optional>

#include "ops/matrices.h"
#include "runtime/kernels/cuda/gemm.h"
#include "runtime/kernels/cuda/row_support.h"

namespace sheaf {
namespace {

// More than one element along these factors of an operand: a vector is no matrix to the library.
bool is_long(const Rule::Factors& group, const Rule::Factors& letters, const Shape& shape) {
  for (std::size_t d = 0; d < letters.size(); ++d)
    if (shape[d] > 1 && std::find(group.begin(), group.end(), letters[d]) != group.end()) return true;
  return false;
}

bool takes_product(const Attrs& attrs, const Type& x, const Type& y, DType result) {
  if (!is_half(x) || y.dtype != x.dtype || (result != x.dtype && result != DType::fp32)) return false;
  if (is_empty(x) || is_empty(y) || x.routed || y.routed) return false;    // of routed rows the host may not know the number beforehand
  const Contraction& c = contraction(attrs);
  return c.x_only.empty() && c.y_only.empty() && is_long(c.m, c.x, x.shape) && is_long(c.k, c.x, x.shape) && is_long(c.n, c.y, y.shape);
}
bool takes_einsum(const Attrs& attrs, const Types& in) {
  return in.size() == 2 && in[1] && takes_product(attrs, *in[0], *in[1], einsum_dtype(attrs, in, 0));
}
// acc, x, y: the product is added before it is rounded, so it must not be meant to be rounded to less than acc.
bool takes_einsum_add(const Attrs& attrs, const Types& in) {
  return einsum_dtype(attrs, {in[1], in[2]}, 0) == in[0]->dtype && takes_product(attrs, *in[1], *in[2], in[0]->dtype);
}

// How a matrix lies; nullopt if neither its rows nor its columns are lines without gaps.
std::optional<GemmOperand> operand(const at::Tensor& t) {
  const std::int64_t rows = t.size(-2), columns = t.size(-1), down = t.stride(-2), along = t.stride(-1);
  const std::int64_t stride = t.dim() == 3 && t.size(0) > 1 ? t.stride(0) : 0;
  if ((columns == 1 || along == 1) && (rows == 1 || down >= columns)) return GemmOperand{rows == 1 ? columns : down, stride, false};
  if ((rows == 1 || down == 1) && (columns == 1 || along >= rows)) return GemmOperand{columns == 1 ? rows : along, stride, true};
  return std::nullopt;
}

cudaDataType data_type(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat ? CUDA_R_32F : t.scalar_type() == at::kHalf ? CUDA_R_16F : CUDA_R_16BF;
}

using UseGemm = void (*)(const Gemm&, void* workspace, CUstream_st*);

// d := a b, or c + a b; d has lines without gaps, c lies as d or is undefined.
void multiply(at::Tensor a, at::Tensor b, at::Tensor c, at::Tensor d, UseGemm use) {
  if (operand(d)->turned) {    // the transpose of b times that of a
    std::swap(a, b);
    for (at::Tensor* t : {&a, &b, &c, &d})
      if (t->defined()) *t = t->transpose(-2, -1);
  }
  for (at::Tensor* t : {&a, &b})
    if (!operand(*t)) *t = t->contiguous();
  const GemmShape shape{.m = d.size(-2),
                        .n = d.size(-1),
                        .k = a.size(-1),
                        .batch = d.dim() == 3 ? d.size(0) : 1,
                        .a = *operand(a),
                        .b = *operand(b),
                        .d = *operand(d),
                        .in = data_type(a),
                        .out = data_type(d),
                        .adds = c.defined()};
  const at::Tensor workspace = at::empty({kGemmWorkspace}, a.options().dtype(at::kByte));
  use({shape, a.const_data_ptr(), b.const_data_ptr(), c.defined() ? c.const_data_ptr() : nullptr, d.data_ptr()}, workspace.data_ptr(),
      static_cast<CUstream_st*>(current_stream()));
}

// acc undefined: nothing is added.
void product(const Args& args, const at::Tensor& acc, const at::Tensor& x, const at::Tensor& y, UseGemm use) {
  at::Tensor out = args.out[0];
  const Contraction& c = contraction(args.attrs);
  const Matrices m = matrices(c, x, y, out);
  if (m.out && operand(*m.out) && (!acc.defined() || acc.strides() == out.strides()))
    return multiply(m.a, m.b, acc.defined() ? acc.as_strided(m.out->sizes(), m.out->strides(), acc.storage_offset()) : at::Tensor(), *m.out,
                    use);
  std::vector<std::int64_t> sizes = m.a.sizes().vec();
  sizes.back() = m.b.size(-1);
  const at::Tensor result = at::empty(sizes, out.options());
  multiply(m.a, m.b, at::Tensor(), result, use);
  acc.defined() ? at::add_out(out, acc, as_output(c, result, out)) : out.copy_(as_output(c, result, out));
}

template <UseGemm use>
void einsum(const Args& a) {
  product(a, at::Tensor(), a.in[0], a.in[1], use);
}
template <UseGemm use>
void einsum_add(const Args& a) {
  product(a, a.in[0], a.in[1], a.in[2], use);
}

bool takes_einsum_each(const Attrs& attrs, const Types& in) {
  for (std::size_t i = 1; i < in.size(); ++i)
    if (!takes_einsum(einsum_attrs(attrs, i - 1), {in[0], in[i]})) return false;
  return true;
}
bool takes_einsum_sum(const Attrs& attrs, const Types& in) {
  for (std::size_t i = 0; i < in.size(); i += 2)
    if (!takes_einsum(einsum_attrs(attrs, i / 2), {in[i], in[i + 1]})) return false;
  return true;
}

// Matrices of one height (dim 0) or width (dim 1) as one, if each begins where the one before it ends and they lie alike.
std::optional<at::Tensor> side_by_side(const std::vector<at::Tensor>& parts, std::int64_t dim) {
  std::int64_t length = 0;
  for (const at::Tensor& part : parts) {
    const auto bytes = length * part.stride(dim) * part.element_size();
    if (part.strides() != parts[0].strides() || part.data_ptr() != static_cast<char*>(parts[0].data_ptr()) + bytes) return std::nullopt;
    length += part.size(dim);
  }
  std::vector<std::int64_t> sizes = parts[0].sizes().vec();
  sizes[static_cast<std::size_t>(dim)] = length;
  return at::from_blob(parts[0].data_ptr(), sizes, parts[0].strides(), parts[0].options());    // of several storages
}

// The matrices of each product: [m, k] and [k, n] -> [m, n].
struct Members {
  std::vector<at::Tensor> a, b, d;
};
void add_member(Members& members, const std::string& rule, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out) {
  Matrices m = matrices(contraction(rule), x, y, out);
  members.a.push_back(m.a), members.b.push_back(m.b), members.d.push_back(m.out.value_or(at::Tensor()));
}
bool have_results(const Members& members) {
  return std::all_of(members.d.begin(), members.d.end(), [](const at::Tensor& d) { return d.defined() && operand(d); });
}

template <UseGemm use>
void einsum_each(const Args& a) {
  const auto& rules = joined_rules(a.attrs);
  Members members;
  for (std::size_t i = 0; i < rules.size(); ++i) add_member(members, rules[i], a.in[0], a.in[i + 1], a.out[i]);
  if (have_results(members))
    if (const auto b = side_by_side(members.b, 1), d = side_by_side(members.d, 1); b && d)
      return multiply(members.a[0], *b, at::Tensor(), *d, use);
  for (std::size_t i = 0; i < rules.size(); ++i)
    einsum<use>({std::array{a.in[0], a.in[i + 1]}, a.out.subspan(i, 1), einsum_attrs(a.attrs, i)});
}
template <UseGemm use>
void einsum_sum(const Args& a) {
  const auto& rules = joined_rules(a.attrs);
  Members members;
  for (std::size_t i = 0; i < rules.size(); ++i) add_member(members, rules[i], a.in[2 * i], a.in[2 * i + 1], a.out[0]);
  if (have_results(members))
    if (const auto x = side_by_side(members.a, 1), y = side_by_side(members.b, 0); x && y)
      return multiply(*x, *y, at::Tensor(), members.d[0], use);
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const std::array in = {a.out[0], a.in[2 * i], a.in[2 * i + 1]};
    const Attrs attrs = einsum_attrs(a.attrs, i);
    i == 0 ? einsum<use>({std::span(in).subspan(1), a.out, attrs}) : einsum_add<use>({in, a.out, attrs});
  }
}

void fill(const Args& a) {
  for (const at::Tensor& t : a.in) t.normal_();
}
template <void (*row)(const Args&)>
void measure(const Args& a) {
  fill(a);
  row(a);
}

// Tensors like those given, as a plan lays them where it can: weights one after the other; tokens, [b, s, ..], side by side.
struct SideBySide {
  std::vector<at::Tensor> weights, tokens;

  SideBySide(std::vector<at::Tensor> weights_, std::vector<at::Tensor> tokens_) : weights(std::move(weights_)), tokens(std::move(tokens_)) {
    const std::int64_t b = tokens[0].size(0), s = tokens[0].size(1);
    std::int64_t elements = 0, width = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) elements += weights[i].numel(), width += tokens[i].numel() / (b * s);
    const at::Tensor line = at::empty({elements}, weights[0].options()).normal_(),
                     matrix = at::empty({b * s * width}, tokens[0].options()).normal_();
    std::int64_t element = 0, column = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i] = line.narrow(0, element, weights[i].numel()).view(weights[i].sizes());
      element += weights[i].numel();
      std::vector<std::int64_t> strides = tokens[i].strides().vec();
      strides[0] = s * width, strides[1] = width;
      tokens[i] = matrix.as_strided(tokens[i].sizes(), strides, column);
      column += tokens[i].numel() / (b * s);
    }
  }
};

// As they are, and once more as one product.
void measure_each(const Args& a) {
  fill(a);
  einsum_each<measure_gemm>(a);
  SideBySide laid({a.in.begin() + 1, a.in.end()}, {a.out.begin(), a.out.end()});
  std::vector<at::Tensor> in = {a.in[0]};
  in.insert(in.end(), laid.weights.begin(), laid.weights.end());
  einsum_each<measure_gemm>({in, laid.tokens, a.attrs});
}
void measure_sum(const Args& a) {
  fill(a);
  einsum_sum<measure_gemm>(a);
  std::vector<at::Tensor> in, weights, tokens;
  for (std::size_t i = 0; i < a.in.size(); i += 2) tokens.push_back(a.in[i]), weights.push_back(a.in[i + 1]);
  const SideBySide laid(std::move(weights), std::move(tokens));
  for (std::size_t i = 0; i < laid.tokens.size(); ++i) in.insert(in.end(), {laid.tokens[i], laid.weights[i]});
  einsum_sum<measure_gemm>({in, a.out, a.attrs});
}

}    // namespace

// Which algorithm measuring finds is not the same in every run.
std::vector<KernelRow> cuda_product_rows() {
  constexpr ColumnMask kProduct{.in = 0b11, .out = 1}, kAdded{.in = 0b110}, kEach{.in = 1, .out = ~0U}, kSum{.in = 0x55555555};
  const auto rows_of = [](std::string_view name, auto takes, auto measured, auto guessed, auto tune, const ColumnMask& columns) {
    KernelRow row{.op = name,
                  .device = DeviceKind::cuda,
                  .name = "cublasLt, measured",
                  .takes = takes,
                  .launch = measured,
                  .deterministic = false,
                  .columns = columns,
                  .tune = tune};
    KernelRow last = row;
    last.name = "cublasLt", last.launch = guessed, last.deterministic = true, last.tune = nullptr;
    return std::array{row, last};
  };
  std::vector<KernelRow> rows;
  for (const auto& both :
       {rows_of("einsum", takes_einsum, einsum<multiply_as_measured>, einsum<multiply_as_guessed>, measure<einsum<measure_gemm>>, kProduct),
        rows_of("einsum_add", takes_einsum_add, einsum_add<multiply_as_measured>, einsum_add<multiply_as_guessed>,
                measure<einsum_add<measure_gemm>>, kAdded),
        rows_of("einsum_each", takes_einsum_each, einsum_each<multiply_as_measured>, einsum_each<multiply_as_guessed>, measure_each, kEach),
        rows_of("einsum_sum", takes_einsum_sum, einsum_sum<multiply_as_measured>, einsum_sum<multiply_as_guessed>, measure_sum, kSum)})
    rows.insert(rows.end(), both.begin(), both.end());
  return rows;
}

}    // namespace sheaf
